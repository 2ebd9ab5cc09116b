"""The public benchmark: MARTY's QED 2->2 rows, legs off their mass shells among them, in their published split.

The ten files are in the GitHub repository Tej-55/kat-sqAmp-calculation, folders "data" and "SYMBA - Test Data".
Downloaded into the working directory they are found here; --files= names others, also of other spellings.
With --off_shell_marks the legs off their mass shells are marked in the amplitude, where they cannot be seen else:

    python prepare.py config/marty_qed.py --off_shell_marks --data_dir=data/marty_qed_marks

An interrupted training is continued with --resume.
"""
files = (
    "QED-2-to-2-diag-TreeLevel-0.txt QED-2-to-2-diag-TreeLevel-1.txt QED-2-to-2-diag-TreeLevel-2.txt "
    "QED-2-to-2-diag-TreeLevel-3.txt QED-2-to-2-diag-TreeLevel-4.txt QED-2-to-2-diag-TreeLevel-5.txt "
    "QED-2-to-2-diag-TreeLevel-6.txt QED-2-to-2-diag-TreeLevel-7.txt QED-2-to-2-diag-TreeLevel-8.txt "
    "QED-2-to-2-diag-TreeLevel-9.txt"
)
split = "published"  # 12,441 rows to train, 1,556 to validate, 1,555 to test
rename_particles = True  # physics does not depend on the names of particles

# 2.1 M parameters, for one or two CPU cores. On one GPU: d_model = 512, heads = 8, three layers each, dropout = 0.2,
# batch_tokens = 8192, learning_rate = 5e-4, warmup_steps = 400, max_minutes = 2
d_model = 192
heads = 6
encoder_layers = 2
decoder_layers = 2
d_ff = 4 * d_model
dropout = 0.1
norm = "post"

batch_tokens = 2048
learning_rate = 1e-3
weight_decay = 0.1
warmup_steps = 100
max_steps = 100000
max_minutes = 30.0  # a slower machine takes fewer steps; the learning rate reaches its end all the same
eval_every = 1000
save_every = 500
log_every = 25
