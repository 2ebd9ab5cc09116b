"""The S-KANformer (github.com/Riteshbhalerao11/symba-test-2025, SineKAN/runs/SYMBA_test.sh), on the QED set.

The Flash architecture (config/flash.py) except for the last layer of the decoder: one SineKAN from 512 to 4096 replaces
its MLP and the residual branch around it, and the head reads 4096 numbers. This model had 92.90% of the sequences of
the public benchmark set right.
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
ffn = "sinekan"
kan_layers = "decoder:last"
kan_grid = 8
kan_ff_dims = "4096"
kan_end = True

learning_rate = 5e-5
weight_decay = 1e-3
grad_clip = 1.0
max_steps = 20000
warmup_steps = 0
