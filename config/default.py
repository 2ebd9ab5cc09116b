"""Every setting of every script with its default. Config files and --key=value override these."""

# data: prepare.py
theory = "qed"  # theory to generate, a name in physics/theory.py
processes = "2->2"  # processes to generate: legs in -> legs out
squares = "diagram"  # "diagram": a row a diagram, no interference; "process": a row a process, all diagrams and their interference
basis = "all"  # "all": the s_ij as the trace gives them; "independent": momentum conservation used
split = "random"  # "random", or "template": rows equal up to particle names never straddle the splits
valid_fraction = 0.1  # share of the rows in valid.csv
test_fraction = 0.1  # share of the rows in test.csv
randomise_indices = True  # draw the numbers of the index labels per row, as MARTY's are
draw = ""  # process whose diagrams to draw, such as "e A -> e A", instead of making a data set
data_dir = ""  # folder with train.csv, valid.csv, test.csv; empty: data/<config name>

# every script
out_dir = ""  # folder of the run; empty: out/<config name>
seed = 1337  # seed of everything random
workers = 0  # worker processes; 0: one per core
device = "auto"  # "auto" (cuda where there is one, else cpu), "cpu", "cuda", "cuda:1"

# tokenizer: longest sequences allowed, in tokens; a longer row is an error
src_max_len = 512  # tokens of an amplitude, end token included
tgt_max_len = 512  # tokens of a squared amplitude, start and end token included
rename_particles = False  # in the tokens the fermions of a row are F1, F2, ... in alphabetical order

# model
d_model = 256  # width of the embeddings and of every layer
heads = 8  # attention heads; must divide d_model
encoder_layers = 3  # layers of the encoder
decoder_layers = 3  # layers of the decoder
d_ff = 1024  # hidden width of the MLP
dropout = 0.1  # dropout rate of the embeddings and of every residual branch
attention = "auto"  # "varlen": one kernel for rows of all lengths (GPU, bf16 or fp16), "sdpa", "reference" (slow); "auto": varlen or else sdpa
checkpoint_layers = False  # less memory in training, a quarter more time: activations inside the layers are computed again for the gradients

# train.py
batch_tokens = 8192  # tokens in a batch, source and target with their padding
learning_rate = 5e-4  # peak learning rate, reached after the warm-up
warmup_steps = 200  # steps of linear warm-up
weight_decay = 0.01  # AdamW weight decay, on matrices only
beta1 = 0.9  # AdamW decay rate of the mean gradient
beta2 = 0.98  # AdamW decay rate of the mean squared gradient
grad_clip = 1.0  # largest norm of the gradient; a longer one is scaled down to it; 0: no limit
max_steps = 20000  # optimiser steps; the learning rate reaches its end there
max_minutes = 0.0  # stop (fully annealed) after this training time even if max_steps is not reached; 0: no limit
eval_every = 1000  # steps between validations
eval_rows = 512  # validation rows used, the same ones each time; 0: all of them
log_every = 50  # steps between lines of log.jsonl
save_every = 1000  # steps between checkpoints
save_limit = 2  # how many ckpt_STEP.pt to keep, besides best.pt and last.pt; 0: all of them
resume = False  # go on from the newest checkpoint in out_dir; a new run where there is none
init_from = ""  # checkpoint whose weights to start from; empty: random weights

# decode.py, evaluate.py
ckpt = ""  # checkpoint to use; empty: best.pt of out_dir, or of the newest run where no config is named
input = ""  # decode.py, evaluate.py: CSV file to read, empty: the test split; prepare.py: files to check and split, empty: rows are generated
output = ""  # file to write; empty: predictions.csv (decode.py), report.json (evaluate.py) beside the checkpoint
amp = ""  # one amplitude to square, instead of a file
verify = False  # check every answer against its amplitude: status verified or unverified
batch_rows = 64  # rows decoded together
max_rows = 0  # stop after so many rows; 0: all of them
