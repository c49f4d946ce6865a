"""What can be measured, each part by itself: `measure(box, inputs, rounds)` returns its figures."""
