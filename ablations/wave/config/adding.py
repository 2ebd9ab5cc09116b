"""Adding: `length` numbers, two of them marked; the sum of these two."""
task = "adding"
length = 100
channels = 8
modes = 16
slowest = 100.0  # so slow that it sums over the whole sequence
batch_rows = 32
learning_rate = 5e-3
max_steps = 2500
eval_every = 250
save_every = 500
out_dir = "out/wave/adding"
