"""The standard QCD set: every diagram of 2->2 and 2->3 that is no longer than electroweak rows may be."""
theory = "qcd"
processes = "2->2; 2->3"
longest_amp = 780
longest_sqamp = 1700

# room for rare numbers, which are written digit by digit, see tokenizer.py
src_max_len = longest_amp + 30
tgt_max_len = longest_sqamp + 30
rename_particles = True

# for one GPU; docs/results.md, "The standard sets on one core", has the flags of a size for a CPU
d_model = 512
heads = 8
d_ff = 4 * d_model
batch_tokens = 16384
warmup_steps = 400
max_steps = 100000
max_minutes = 10.0  # the learning rate reaches its end
batch_rows = 512
