"""Permuted digits: the 64 pixels of an image, one a step, in a fixed random order; which digit is it?"""
task = "permuted"
hidden = 64
channels = 16
modes = 16
layers = 1
batch_rows = 32
learning_rate = 5e-3
max_steps = 1350  # 30 epochs of 1,437 images
eval_every = 135
save_every = 450
out_dir = "out/wave/permuted"
