"""What a model really does, counted on a CPU, to check closed forms with. Needs torch and Transformers.

slices    one and two layers of a model without memory, built from a config
saved     which tensors autograd keeps for the way back, by kind
flops     what torch's counter counts
"""
