"""Deployments on the VM: secrets, images and immutable releases.

Standard library only: it runs with the VM's own Python, before anything else is there. Each command of
`python3 -m deployment` does one step, may be repeated, and prints one JSON line that says what changed.
"""
