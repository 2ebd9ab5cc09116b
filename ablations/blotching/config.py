"""The blotching experiment: its own settings with their defaults, and defaults that differ from config/default.py."""

# problems
max_num = 20  # largest number outside products
max_ents = 4  # most entities of a problem, two at least; a parenthesis is one entity
p_ent = 0.7  # probability of each entity beyond the second
p_mult = 0.25  # probability of a sign to be "*", else it is "+"
max_mult_num = 4  # largest number in a product
p_paren = 0.05  # probability of an entity to be a parenthesis, which has max_ents - 1 entities at most
space_mults = True  # no product of more than two entities
zipf_order = 0.0  # number n has a probability proportional to (n + 1)^-zipf_order; 0: all are equally likely

# data cache
init_samples = 10000  # chains at the beginning; 0: max_samples
max_samples = 0  # most chains that bootstraps may grow it to, the oldest leave; 0: no limit
val_samples = 100  # problems to validate with, none of them in training

# blotching
n_btokens = 10  # blotch tokens 0 to n_btokens, one for each level; 0: one level, with probability blotch_p
blotch_p_min = 0.0  # probability of deleting a middle step at level 0
blotch_p_max = 1.0  # the same at level n_btokens
blotch_p = 0.0  # the same where n_btokens = 0; 0: no blotching
contig_blotches = True  # neighbouring steps may be deleted; False: a step after a deleted one stays

# model
model_type = "transformer"  # "transformer", "lstm"
d_model = 64  # width of the embeddings and of every layer
heads = 4  # attention heads
n_layers = 4  # layers
h_mult = 4  # hidden width of the MLPs: h_mult * d_model
dropout = 0.0  # dropout rate of the embeddings and of every residual branch
norm = "post"  # layer norm: "pre", "post"
posenc_type = "rotary"  # "rotary"; "sinusoidal"; "random": a random increasing sequence of random vectors
max_posencs = 256  # positions there are
learnable_posencs = False  # train the positional encodings
posenc_drop_p = 0.0  # dropout rate of the positional encodings
pad_pos_skip = True  # positions count the tokens that are left; False: they have gaps where tokens were blotched
seq_len = 256  # most tokens of a row, blotch token and EOS included

# training
out_dir = "out/blotching"  # folder of the run
batch_size = 32  # rows of a micro-batch
n_grad_loops = 1  # micro-batches of a step
incl_intl_prob = False  # the tokens of the problem have a loss too
init_checkpt = ""  # checkpoint to take the first weights from
n_train_loops = 0  # most steps of an epoch, which ends with the data cache; 0: all of it
learning_rate = 2e-3  # peak learning rate
warmup_steps = 100  # steps of linear warm-up
weight_decay = 0.01  # weight decay, on matrices only
max_steps = 2000  # steps of the run
max_minutes = 0.0  # stop after so many minutes of training and bootstraps, CPU time on a CPU; 0: no limit
log_every = 50  # steps between lines of log.jsonl
save_every = 500  # steps between checkpoints
save_limit = 1  # ckpt_STEP.pt that are kept; 0: all
wandb_project = "symba-blotching"  # project at Weights & Biases

# validation
val_mod = 4  # epochs between validations
val_batch_size = 250  # problems answered together, in validation and in bootstraps
max_val_loops = 0  # batches of a validation at most; 0: all val_samples
val_temp = 1.0  # sampling temperature; 0: the most probable token

# bootstraps
pre_epochs = 4  # epochs before the first bootstrap
aug_mod = 1  # epochs between bootstraps; -1: at a plateau of the loss
min_aug_gap = 2  # fewest epochs between bootstraps at plateaus
bootstrap_blotch_p = 0.5  # answer with the blotch token whose probability is nearest to this
aug_temp = 1.0  # sampling temperature
star_loops = 0  # STaR: batches of new problems to answer
aug_loops = 0  # augmentation: batches of training chains to answer anew; -1: all
in_place = True  # such an answer replaces its chain; False: it is appended
axe_loops = 0  # axing: batches of training chains to try; -1: all
axe_tol = 0.2  # largest rise of the loss by a deleted step
abs_axe_tol = True  # axe_tol in nats a token; False: relative to the loss before
axe_comp_steps = 2  # steps after the deleted one whose loss is compared; 0: all

# evaluate.py
test_samples = 500  # problems for each level
test_sizes = 100  # problems for each size
problem = ""  # answer this problem, such as "3+4*2", instead
level = 0  # level of blotching of that answer, 0 to n_btokens
