"""Adding: `length` numbers, two of them marked; the sum of these two."""
task = "adding"
length = 100
channels = 8
modes = 16
batch_rows = 32
max_steps = 1500
eval_every = 250
save_every = 500
out_dir = "out/wave/adding"
