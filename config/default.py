"""Every setting of every script with its default. Config files and --key=value override these."""

# data: prepare.py
theory = "qed"  # "qed", "qcd", "ew", "general", random ones "random:0-199", several, or a file: docs/my_theory.md
processes = "2->2"  # processes to generate: numbers of legs or the particles, such as "2->2; 2->3; e A -> e A"
sample = 0  # at most so many diagrams of each entry of `processes`: whole processes, drawn with the seed; 0: all
max_diagrams = 200000  # refuse a larger job and print what it would cost
style = "factored"  # "factored": prefactor, sum, propagators; "inside": its number in the sum; "marty": multiplied out
off_shell = 0  # also rows with up to so many legs off the mass shell, in every choice of legs, marked `_off` in amp
longest_amp = 0  # leave out rows whose amplitude has more tokens, and count them; 0: no limit
longest_sqamp = 0  # the same for the squared amplitude
squares = "diagram"  # "diagram": a row for each diagram, no interference; "process": a row for each process, with it
basis = "all"  # "all": the s_ij as the trace gives them; "independent": eliminated by momentum conservation
split = "random"  # "random"; or rows stay together: "template", equal up to particle names; "kinematics", charges too;
# "orbit", up to the order of the legs and their sides too; "published": the split of the public MARTY files
files = ""  # prepare.py: check and split the rows of these files, as --input=FILE does, instead of making rows
off_shell_marks = False  # mark legs off the mass shell `_off` in amp, where MARTY's column `diagram` says OffShell
valid_fraction = 0.1  # share of the rows in valid.csv
test_fraction = 0.1  # share of the rows in test.csv
randomise_indices = True  # random numbers for the indices of each row, as in MARTY's files
draw = ""  # draw the diagrams of these processes, such as "e A -> e A; 2->2", instead of making a data set
shard = ""  # "3/16": make only part 3 of 16, and no data set yet
merge = False  # make the data set from all shards
data_dir = ""  # folder with train.csv, valid.csv, test.csv; empty: data/<config name>

# every script
out_dir = ""  # folder of the run; empty: out/<config name>
run_id = ""  # name of one run among several of a config: its folder is out_dir/<run_id>
seed = 1337  # seed of everything random
workers = 0  # worker processes; 0: one per core
device = "auto"  # "auto" (cuda where there is one, else cpu), "cpu", "cuda", "cuda:1"
dtype = "auto"  # matrix products: "fp32", "bf16", "fp16", "int8" (CPU decoding); "auto": bf16 or fp16 on GPU, else fp32

# tokenizer: longest sequences allowed, in tokens; a longer row is an error
src_max_len = 512  # tokens of an amplitude, end token included
tgt_max_len = 512  # tokens of a squared amplitude, or of one term (termwise), start and end token included
normal_form = False  # amplitudes in one spelling, whoever wrote them: physics/normal_form.py
rename_particles = False  # tokens name the fermions of a row F1, F2, ... in alphabetical order, neutrinos keep theirs
termwise = False  # write a square term by term: each term is an answer and a training sample of its own
src_notation = "infix"  # notation of amplitudes: "infix", "prefix", "hybrid" (prefix, sums and products have an end)
tgt_notation = "infix"  # notation of squared amplitudes
shorten_masses = False  # m_e^2*s_12 is one token
glue = "tensor"  # "tensor": a tensor and its first index are one token; "all": a field and its leg too; "none": neither
closed_vocabulary = True  # tokens for all that the theory and the number of legs allow, in training rows or not
draw_indices = False  # train.py: other names for the indices of a row each time it comes, so that each name is learned
legs = 0  # legs that a closed vocabulary has room for; 0: as many as a training row has

# model
d_model = 256  # width of the embeddings and of every layer
encoder_d_model = 0  # width of the encoder; 0: d_model
heads = 8  # attention heads; must divide d_model
encoder_layers = 3  # layers of the encoder
decoder_layers = 3  # layers of the decoder
d_ff = 1024  # hidden width of the MLPs
encoder_d_ff = 0  # hidden width of the encoder's MLPs; 0: d_ff
encoder = "attention"  # how source tokens see each other: "attention"; linear in length: "wave", "ssm" (ablations/wave)
norm = "post"  # layer norm, "post": after adding each residual branch (Vaswani et al.); "pre": before it and at the end
positions = "rotary"  # "rotary": RoPE on queries and keys; "sinusoidal", "learned": added to the embeddings
embeddings = "separate"  # "tied": target embedding = output matrix; "shared": and source embedding, one vocabulary
activation = "gelu"  # of the MLPs: "gelu", "relu", "relu2" (its square), "swiglu" (half more weights at the same d_ff)
bias = False  # biases in the four matrices of attention and in the output matrix
qk_norm = True  # queries and keys of each head divided by their root mean square
zero_init = False  # matrices that end residual branches begin at zero
ffn = "mlp"  # feed-forward network of the layers: "mlp" or "sinekan", see sinekan.py
kan_layers = "all"  # layers with SineKANs: "all", "encoder", "decoder", "decoder:last", "encoder:1 decoder:3" (from 1)
kan_grid = 8  # sines on each edge of a SineKAN
kan_ff_dims = ""  # hidden widths of the SineKANs: "256 256"; "none": one SineKAN; "": one width, weights like the MLP
kan_end = False  # last layer: the SineKAN has no residual branch; the head reads its last width (S-KANformer)
n_latent = 0  # the decoder sees so many learned tokens that have read the encoder's memory; 0: the memory itself
dropout = 0.1  # dropout rate of the embeddings and of every residual branch
attention = "auto"  # "varlen": fused, on packed rows (GPU, bf16 or fp16), "sdpa", "reference"; "auto": varlen or sdpa
checkpoint_layers = False  # recompute the layers' activations for the gradients: less memory, a quarter more time

# train.py
batch_tokens = 8192  # tokens in a micro-batch, source and target; rows of all lengths
accumulate = 1  # micro-batches of a step on each rank: at most ranks * accumulate * batch_tokens tokens a step
batch_ramp = 0.0  # share of the run over which the micro-batches of a step grow from 1 to `accumulate`
compile = "auto"  # torch.compile: "on", "off"; "auto": on a GPU without padding, from 1,000 steps and 3 minutes on
optimizer = "adamw"  # "adamw", or "muon" for the matrices inside the layers and adamw for the rest
learning_rate = 5e-4  # peak learning rate, reached after the warm-up
schedule = "cosine"  # "cosine" and "linear" end at 0, "constant", "one-cycle" (no other warm-up)
warmup_steps = 200  # steps of linear warm-up
weight_decay = 0.01  # weight decay, on matrices only
beta1 = 0.9  # AdamW decay rate of the mean gradient
beta2 = 0.98  # AdamW decay rate of the mean squared gradient
grad_clip = 1.0  # largest norm of the gradient, a larger one is scaled down to it; 0: no limit
label_smoothing = 0.0  # share of the target's probability that is spread over the vocabulary, in training
ema = 0.0  # decay of a moving average of the weights, such as 0.999; it is validated and decoded with; 0: none
loss_spike = 10.0  # skip a step, once, if its loss is so many times the usual loss of its kinds of process; 0: never
bad_steps = 10  # after so many bad steps in a row return to the last checkpoint with half the learning rate; 0: never
max_rollbacks = 3  # most returns to a checkpoint; after that the run stops
max_steps = 20000  # optimiser steps; the learning rate reaches its end there
max_minutes = 0.0  # end after this time, validations included, the learning rate at its end; 0: no limit
eval_every = 1000  # steps between validations
eval_batch_tokens = 131072  # tokens of the rows that are validated together, with their padding
eval_rows = 512  # validation rows to evaluate, always the same, and a few more of rare kinds; 0: all
eval_train_rows = 128  # training rows to evaluate too, chosen likewise; 0: none
log_every = 50  # steps between lines of log.jsonl
save_every = 1000  # steps between checkpoints
save_limit = 2  # ckpt_STEP.pt files to keep, besides best.pt and last.pt; 0: all
resume = False  # continue from the newest checkpoint in out_dir; a new run where there is none
resume_best = False  # continue from best.pt in out_dir and remove the later checkpoints
new_data = False  # with resume: continue although train.csv has changed
init_from = ""  # checkpoint to take the first weights from; empty: random weights
wandb_mode = "disabled"  # log to Weights & Biases too: "disabled", "offline", "online"
wandb_project = "symba"  # project there
list = False  # list the runs below out/ (or --out_dir=) instead of training
plot = ""  # run folders, separated by spaces: plot their curves into plot.png (or --output=) instead of training

# scst.py: starts from the checkpoint `ckpt`, learns on the rows of `input`
scst_dir = ""  # folder of the run; empty: out_dir/scst
indices = ""  # inc_idx.npy of evaluate.py: only these rows; empty: all
reward = "0.5*edit + 0.5*truth"  # "edit", "truth", "physics" (needs no sqamp) or a weighted sum of them, see rewards.py
baseline = "leave-one-out"  # mean reward of the row's other samples; "greedy": reward of the greedy answer
normalise_advantage = False  # divide the advantages of a row by their root mean square over the row's samples
scst_samples = 8  # answers sampled for each row, with temperature, top_k, top_p
scst_max_len = 0  # longest rollout in tokens with EOS; a longer square is an error; 0: as the training targets need
rows_per_step = 32  # rows of a step, of all ranks together
scst_learning_rate = 1e-4  # peak learning rate; schedule and warm-up as in training
mle_weight = 0.0  # weight of the cross-entropy of a target token, train.py's loss, beside the reward
kl_weight = 0.0  # weight of the KL divergence from the model at the start, mean over the tokens of the answers

# decode.py, evaluate.py
ckpt = ""  # checkpoint; empty: best.pt of out_dir, where no config is named of the newest run, else models/symba
input = ""  # CSV file to read; empty: the test split, for scst.py the training split; prepare.py: files to check, split
masses = ""  # masses that rows of files do not tell: "e=m mu=M A_em=0"; 0: massless
output = ""  # file to write; empty: predictions.csv or report.json beside the checkpoint, plot.png in the first run
amp = ""  # one amplitude to square, instead of a file; "-": read it from standard input
beam = False  # beam search instead of greedy decoding
beam_size = 5  # hypotheses of the beam; all of them are candidates
length_penalty = 0.0  # the beam compares logprob / length**length_penalty
samples = 0  # sample so many candidates instead
temperature = 1.0  # of the samples; below 1 probable tokens become more probable
top_k = 0  # sample from the so many most probable tokens; 0: from all
top_p = 1.0  # sample from the fewest tokens that together have this probability
verify = False  # check the candidates against the amplitude; the first right one is the answer
fallback = False  # compute the square where no candidate is right
agree = False  # measure how much of the candidates' probability is on texts equal to the answer as physics
n_best = False  # write the candidates too
format = "text"  # notation of formulas: "text", "latex", "sympy", "mathematica", "form", "python"
column = "sqamp"  # column that `python -m dataset.convert` writes in that notation
batch_rows = 64  # rows decoded together; 512 and more keep a GPU busy
max_rows = 0  # stop after so many rows; 0: all of them
notations = False  # evaluate.py: lengths of the data sets in `input` in each notation; with `compare` accuracy of runs
train_rows = 200  # evaluate.py: training rows decoded too, the same ones each time; 0: none
export = ""  # evaluate.py, prepare.py: folder to write the model, or the data set, with its card into
compare = ""  # evaluate.py: runs that were evaluated on the same rows, separated by spaces: do they differ?

# cross_section.py
energies = ""  # "10:200": lowest and highest centre-of-mass energy, in GeV; empty: 1.05 to 20 times the threshold
max_cos = 1.0  # leave out scattering angles with a larger |cos(theta)|
