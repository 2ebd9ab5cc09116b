"""Every setting of every script with its default. Config files and --key=value override these."""

# data: prepare.py
theory = "qed"  # theory to generate, a name in physics/theory.py
processes = "2->2"  # processes to generate, such as "2->2; 2->3; e A -> e A": legs in -> legs out, or a process
sample = 0  # of "2->3" and the like only so many diagrams, those of whole processes drawn with the seed; 0: all
max_diagrams = 200000  # more than so many are not begun, but what they would cost is said
style = "factored"  # "factored": prefactor, polynomial, propagators; "marty": multiplied out, a sum of products
off_shell = 0  # with up to so many legs off their mass shell too, in every choice of them (of 1->2 those that momenta allow); marked `_off` in amp
longest_amp = 0  # rows whose amplitude has more tokens are left out and counted; 0: none
longest_sqamp = 0  # the same of the squared amplitude
squares = "diagram"  # "diagram": a row a diagram, no interference; "process": a row a process, all diagrams and their interference
basis = "all"  # "all": the s_ij as the trace gives them; "independent": momentum conservation used
split = "random"  # "template": rows equal up to particle names never straddle the splits; "kinematics": nor those equal up to charges too
valid_fraction = 0.1  # share of the rows in valid.csv
test_fraction = 0.1  # share of the rows in test.csv
randomise_indices = True  # draw the numbers of the index labels per row, as MARTY's are
draw = ""  # process whose diagrams to draw, such as "e A -> e A", instead of making a data set
shard = ""  # "3/16": make only part 3 of 16, and no data set yet
merge = False  # make the data set of all shards
data_dir = ""  # folder with train.csv, valid.csv, test.csv; empty: data/<config name>

# every script
out_dir = ""  # folder of the run; empty: out/<config name>
run_id = ""  # name of one run among several of a config: its folder is out_dir/<run_id>
seed = 1337  # seed of everything random
workers = 0  # worker processes; 0: one per core
device = "auto"  # "auto" (cuda where there is one, else cpu), "cpu", "cuda", "cuda:1"
dtype = "auto"  # of the matrix products: "fp32", "bf16", "fp16" (training: with loss scaling), decoding on a CPU also "int8"; "auto": fp32 on a CPU, bf16 or else fp16 on a GPU

# tokenizer: longest sequences allowed, in tokens; a longer row is an error
src_max_len = 512  # tokens of an amplitude, end token included
tgt_max_len = 512  # tokens of a squared amplitude, with termwise of one of its terms, start and end token included
rename_particles = False  # in the tokens the fermions of a row are F1, F2, ... in alphabetical order
termwise = False  # the model writes a square term by term, each an answer of its own: a training sample for each term

# model
d_model = 256  # width of the embeddings and of every layer
encoder_d_model = 0  # that of the encoder; 0: d_model
heads = 8  # attention heads; must divide d_model
encoder_layers = 3  # layers of the encoder
decoder_layers = 3  # layers of the decoder
d_ff = 1024  # hidden width of the MLP
encoder_d_ff = 0  # that of the encoder; 0: d_ff
norm = "post"  # layer norms "post": after adding each branch, as in the original transformer, "pre": before each branch and once at the end
positions = "rotary"  # "rotary": queries and keys are turned; "sinusoidal", "learned": added to the embeddings
embeddings = "separate"  # "tied": the target's embedding is the output matrix too, "shared": and the source's, with one vocabulary
activation = "gelu"  # of the MLP: "gelu", "relu", "swiglu" (half more weights at the same d_ff)
bias = False  # attention's four matrices and the output matrix with a bias
ffn = "mlp"  # feed-forward network of the layers: "mlp" or "sinekan", see sinekan.py
kan_layers = "all"  # layers with ffn=sinekan: "all", "decoder", "decoder:last", "encoder:1 decoder:3" (the first is 1); the others have the MLP
kan_grid = 8  # sines on each edge of a SineKAN
kan_ff_dims = ""  # hidden widths of the SineKANs stacked in a layer, such as "256" or "256 256"; "none": one SineKAN; "": one width, with the weights of the MLP
kan_end = False  # S-KANformer: the last layer's SineKANs replace its stream instead of adding to it, and end with the last of kan_ff_dims, the head's width
kan_embed = False  # a SineKAN on the embeddings of each side
dropout = 0.1  # dropout rate of the embeddings and of every residual branch
attention = "auto"  # "varlen": one kernel for rows of all lengths (GPU, bf16 or fp16), "sdpa", "reference" (slow); "auto": varlen or else sdpa
checkpoint_layers = False  # less memory in training, a quarter more time: activations inside the layers are computed again for the gradients

# train.py
batch_tokens = 8192  # tokens in a micro-batch, source and target with their padding
accumulate = 1  # micro-batches of a step on each rank: a step is ranks * accumulate * batch_tokens tokens at most
compile = False  # torch.compile: a minute of compiling first, then faster steps on a GPU
optimizer = "adamw"  # "adamw", or "muon" for the matrices inside the layers and adamw for the rest
learning_rate = 5e-4  # peak learning rate, reached after the warm-up
schedule = "cosine"  # "cosine" and "linear" end at 0, "constant", "one-cycle" (no other warm-up)
warmup_steps = 200  # steps of linear warm-up
weight_decay = 0.01  # weight decay, on matrices only
beta1 = 0.9  # AdamW decay rate of the mean gradient
beta2 = 0.98  # AdamW decay rate of the mean squared gradient
grad_clip = 1.0  # largest norm of the gradient; a longer one is scaled down to it; 0: no limit
label_smoothing = 0.0  # share of the target's probability that is spread over the vocabulary, in training
ema = 0.0  # decay of a moving average of the weights, such as 0.999, which is then validated and decoded with; 0: none
loss_spike = 10.0  # a step whose loss is more than so many times the running median is skipped; 0: none is
bad_steps = 10  # after so many skipped steps in a row: back to the last checkpoint with half the learning rate; 0: never
max_rollbacks = 3  # how often at most; then training stops
max_steps = 20000  # optimiser steps; the learning rate reaches its end there
max_minutes = 0.0  # stop (fully annealed) after this training time even if max_steps is not reached; 0: no limit
eval_every = 1000  # steps between validations
eval_rows = 512  # validation rows used, the same ones each time; 0: all of them
log_every = 50  # steps between lines of log.jsonl
save_every = 1000  # steps between checkpoints
save_limit = 2  # how many ckpt_STEP.pt to keep, besides best.pt and last.pt; 0: all of them
resume = False  # go on from the newest checkpoint in out_dir; a new run where there is none
resume_best = False  # go on from best.pt in out_dir; the checkpoints after it are given up
init_from = ""  # checkpoint whose weights to start from; empty: random weights
wandb_mode = "disabled"  # log at Weights & Biases too: "disabled", "offline", "online"
wandb_project = "symba"  # project there
list = False  # list the runs below out/ (or --out_dir=) instead of training
plot = ""  # run folders, separated by spaces, whose curves to draw into plot.png (or --output=) instead of training

# scst.py: from the checkpoint `ckpt` (empty: best.pt of out_dir) on, on the rows of `input` (empty: the training split)
scst_dir = ""  # folder of the run; empty: out_dir/scst
indices = ""  # inc_idx.npy of evaluate.py: only these rows; empty: all
reward = "0.5*edit + 0.5*truth"  # of an answer: "edit", "truth", "physics" (needs no sqamp), or a weighted sum of them; see rewards.py
baseline = "leave-one-out"  # what a reward is compared with: "leave-one-out", the mean of the row's other samples, or "greedy", that of the greedy answer
normalise_advantage = False  # reward minus baseline is divided by its root mean square over the row's samples
scst_samples = 8  # answers drawn for each row, with temperature, top_k, top_p
scst_max_len = 0  # longest answer drawn, in tokens with its end; 0: the longest training target, without sqamp tgt_max_len of the checkpoint
rows_per_step = 32  # rows of a step, of all ranks together
scst_learning_rate = 1e-4  # peak learning rate; schedule and warm-up as in training
mle_weight = 0.0  # weight of the loss that train.py has (cross-entropy of a target token), beside the reward
kl_weight = 0.0  # weight of the distance to the model at the start: KL divergence of a token's distribution, mean over the answers' tokens

# decode.py, evaluate.py
ckpt = ""  # checkpoint to use; empty: best.pt of out_dir, or of the newest run where no config is named
input = ""  # decode.py, evaluate.py: CSV file to read, empty: the test split; scst.py: empty: the training split; prepare.py: files to check and split, empty: rows are generated
masses = ""  # mass symbols of particles that rows of files do not tell, "e=m mu=M A_em=0"; 0: massless (prepare.py, verify.py, decode.py, evaluate.py)
output = ""  # file to write; empty: predictions.csv (decode.py), report.json (evaluate.py) beside the checkpoint, plot.png (train.py --plot) in the first run
amp = ""  # one amplitude to square, instead of a file; "-": read it from standard input
beam = False  # beam search instead of the most probable token at each position
beam_size = 5  # hypotheses of the beam, all of them candidates
length_penalty = 0.0  # the beam compares logprob / length**length_penalty
samples = 0  # draw so many candidates at random instead
temperature = 1.0  # of the samples; below 1 the probable tokens get more probable
top_k = 0  # samples draw from the so many most probable tokens; 0: from all
top_p = 1.0  # samples draw from the fewest tokens that together have this probability
verify = False  # check the candidates against the amplitude: the first right one is the answer
fallback = False  # where no candidate is right, compute the square
agree = False  # how much of the candidates' probability is on texts equal to the answer as physics
n_best = False  # write the candidates too
batch_rows = 64  # rows decoded together
max_rows = 0  # stop after so many rows; 0: all of them
