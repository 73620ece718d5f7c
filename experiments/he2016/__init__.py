"""Tables and figures of He et al. 2016, arXiv 1603.05027."""
