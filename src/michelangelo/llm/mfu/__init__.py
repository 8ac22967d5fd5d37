"""FLOPs by every convention, and what share of a machine's peak they use. Plain arithmetic: no torch.

flops    floating-point operations per token, in closed form
report   from a measured speed to utilisation, by each convention
"""
