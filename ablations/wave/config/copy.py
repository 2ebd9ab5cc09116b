"""Copy: ten symbols, a pause of `length` steps, then the ten symbols again."""
task = "copy"
length = 30
out_dir = "out/wave/copy"
