"""What runs on every rank but 0, and in the processes below it.

    launcher ─▶ rank (MPI) ─▶ zygote ─▶ runner × k

The zygote is forked first of all (`worker.zygote`), the rank then starts MPI and relays (`worker.worker`),
runners run the tasks (`worker.runner`).
"""
