"""What the processes on one VM share: the lock that only one of them holds, and the log of who did what."""
