"""Jobs that write to one corpus in a bucket, on a virtual clock over a faulty store in memory: one seed is one schedule.

`python -m tests.simulation --seeds 1000` plays schedules, `--seed N` plays one again. Real are the run loop, the committer, recovery, the
commit log and the working copies (on a local disk). Played are the store, the clock, the workers and the death of processes and nodes.
"""
