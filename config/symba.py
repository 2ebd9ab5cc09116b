"""One model for QED, QCD and the electroweak theory: 1->2, 2->2 and 2->3, of each at most 3,000 diagrams."""
theory = "qed qcd ew"
processes = "1->2; 2->2; 2->3"
sample = 3000
longest_amp = 400
longest_sqamp = 400
src_max_len = 640  # the normal form of an amplitude may be longer than the amplitude
rename_particles = True
normal_form = True  # so that it reads MARTY's amplitudes and others' as its own

# 2.4 M parameters, for one CPU core
d_model = 192
heads = 6
encoder_layers = 2
decoder_layers = 2
d_ff = 4 * d_model
dropout = 0.05

batch_tokens = 4096
learning_rate = 2e-3
weight_decay = 0.1
warmup_steps = 200
max_steps = 1000000
max_minutes = 75.0  # a slower machine takes fewer steps; the learning rate reaches its end all the same
eval_every = 1000
save_every = 1000
