"""Tables and figures of He et al. 2016, arXiv 1603.05027; the numbers are those of papers/he2016.json."""
