"""Every QED 2->2 diagram on two CPU cores: data, a model that squares unseen amplitudes, and its score in minutes."""
theory = "qed"
processes = "2->2"

# about 1 M parameters: more do not learn these few rows better, and take longer
d_model = 128
heads = 4
encoder_layers = 2
decoder_layers = 2
d_ff = 512
dropout = 0.1

# small batches: on a CPU a step costs what its tokens cost, so that many small steps learn more in the same time
batch_tokens = 1024
learning_rate = 1e-3
warmup_steps = 100
max_steps = 4000
max_minutes = 6.0  # a slower machine takes fewer steps, but is annealed to the end all the same
eval_every = 250
save_every = 250
log_every = 25
