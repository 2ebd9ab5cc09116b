"""Every QED 2->2 diagram with the model size that the GPU benchmarks use."""
theory = "qed"
processes = "2->2"
rename_particles = True

d_model = 512
heads = 8
encoder_layers = 3
decoder_layers = 3
d_ff = 2048
dropout = 0.1

batch_tokens = 8192
learning_rate = 5e-4
warmup_steps = 400
max_steps = 6000
eval_every = 500
save_every = 500
