"""The settings of the wave experiment: new ones, and other defaults of those in the project's config/default.py."""

# what
model = "wave"  # "wave", "identity", "lstm", "transformer", "ssm", "mamba"
task = "copy"  # "copy", "adding", "digits", "permuted" (digits with their pixels in another order)
length = 30  # copy: steps between the symbols and their recall, 0 or more; adding: steps of a sequence

# model; the docstring of each class in models.py says which of these it reads
hidden = 100  # units of a ring (wave) or of the state (identity, lstm)
channels = 6  # channels of the ring (wave, ssm)
modes = 64  # Fourier modes of a channel (ssm); delays of up to 2 * modes steps are told apart
slowest = 1.0  # the rings of the channels are slower, in geometric progression up to so many times (ssm)
states = 8  # numbers in the state of each feature (mamba)
width = 32  # of the residual stream (transformer, ssm, mamba)
layers = 1  # (transformer, ssm, mamba)
heads = 4  # attention heads (transformer)

# training
batch_rows = 128  # sequences of a step
learning_rate = 1e-2  # peak learning rate, reached after the warm-up
warmup_steps = 20  # steps of linear warm-up
weight_decay = 0.0  # weight decay, on matrices only
max_steps = 400  # optimiser steps; the learning rate reaches its end there
log_every = 20  # steps between lines of log.jsonl
eval_every = 100  # steps between validations
save_every = 200  # steps between checkpoints
save_limit = 1  # ckpt_STEP.pt files to keep, besides best.pt and last.pt; 0: all
wandb_project = "symba-wave"  # project there

# data and measure.py
valid_rows = 500  # sequences of the validation split and of the test split; the digits have 180 and 180 images
data_dir = "data/wave"  # folder of the prepared splits
only = ""  # measure.py: make only the runs whose names begin so
