"""The transformer of the Flash code (github.com/Riteshbhalerao11/GSoC_25, model/model.py, sample run), on the QED set.

That code also has dropout inside the MLPs and on the attention weights. Here dropout acts on the embeddings and on
every residual branch.
"""
theory = "qed"
processes = "2->2; 2->3"
rename_particles = True
src_max_len = 512
tgt_max_len = 1024

d_model = 512
heads = 8
encoder_layers = 3
decoder_layers = 3
d_ff = 8 * d_model
dropout = 0.1
norm = "post"
positions = "sinusoidal"
bias = True
qk_norm = False

learning_rate = 5e-5
weight_decay = 0.01
grad_clip = 1.0
max_steps = 20000
warmup_steps = max_steps // 20
