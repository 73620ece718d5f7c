"""What the tables of the 2016 paper share."""

#: Its nets warm up at 0.01 for 400 iterations (appendix). The nets of 2015 in configs/ warm up by their own paper's
#: rule, so rows of this paper that start from them say so.
WARMUP = {"schedule.warmup": "steps"}

#: Units of figure 4, (a) to (e), as the model calls them.
UNITS = {
    "original": "original",
    "bn_after_addition": "BN after addition",
    "relu_before_addition": "ReLU before addition",
    "relu_only_preactivation": "ReLU-only pre-activation",
    "full_preactivation": "full pre-activation",
}

#: Data sets as the tables call them.
SETS = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
