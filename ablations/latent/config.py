"""The latent experiment: its own settings with their defaults, and defaults that differ from config/default.py."""

# data
min_digits = 1  # fewest digits of a factor
max_digits = 2  # most digits of a factor
min_factor = 0  # smallest factor; 0: the smallest number of min_digits digits
max_factor = 0  # largest factor; 0: the largest number of max_digits digits
max_pairs = 0  # at most so many pairs of factors, drawn with the seed; 0: all
units_first = "product"  # numbers that are written units first: "none", "product", "all"
zero_padded = True  # factors and products are filled up with zeros to one width

# model
n_latent = 0  # latent tokens between encoder and decoder; 0: the simple transformer
d_model = 64  # width of the embeddings and of every layer
heads = 4  # attention heads
encoder_layers = 2  # layers of the encoder
decoder_layers = 2  # layers of the decoder
d_ff = 4 * 64  # hidden width of the MLPs
positions = "rotary"  # "rotary", "sinusoidal", "learned"
src_max_len = 16  # most tokens of a problem, EOS included
tgt_max_len = 16  # most tokens of a product, BOS and EOS included
dropout = 0.0  # dropout rate
dtype = "auto"  # "fp32", "bf16", "fp16"; "auto": bf16 or fp16 on GPU, else fp32

# training
rows_per_step = 256  # rows of a step
optimizer = "adamw"  # "adamw", "muon"
learning_rate = 2e-3  # peak learning rate
warmup_steps = 100  # steps of linear warm-up
weight_decay = 1.0  # weight decay, on matrices only
max_steps = 2500  # steps of the run
accuracy_weight = 0.0  # weight of 1 - (probability of the whole product) beside the cross-entropy of a token
tf_schedule = "constant"  # fall of the share of true tokens: "constant", "linear", "cosine", "step", "exponential"
tf_start_step = 0  # step at which the share begins to fall
tf_end = 0.5  # share at the end
grad_clip = 1.0  # largest norm of the gradient at the peak learning rate, in the first step; 0: no limit
clip_rate = 0.5  # the limit follows (learning rate / its peak)**clip_rate, at least a tenth of it; 0: it does not
clip_step = 0.5  # part of the limit that is lost, evenly, until the end; 0: none
eval_every = 500  # steps between validations
eval_rows = 500  # training rows to validate with; all validation rows are used; 0: all training rows
save_every = 500  # steps between checkpoints
log_every = 50  # steps between lines of log.jsonl
wandb_project = "symba-latent"  # project at Weights & Biases

# runs
out_dir = "out/latent"  # folder of the runs, each in a folder named by its run_id
show = ""  # id of a run to show: its settings that differ from the defaults, and its figures
sort = "newest"  # order of --list: "newest", "exact", "loss", "step", "name"
