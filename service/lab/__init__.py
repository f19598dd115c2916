"""`dppo lab`: runs of `dppo_core.lab` on a machine's cores, kept as files, logged live, compared and drawn.

store        one file a run, made once; states of interrupted runs
execute      one run from its start or its last state to its file
workers      many runs, one process a core
logs         an iteration as rollout records, to a service or to files
plan         the declared experiment: arms, seeds, controls, questions
outcomes     numbers of a run, paired comparisons
claims       the paper's claims, each with a verdict
report       tables, figures and the manifest from what is stored
"""
