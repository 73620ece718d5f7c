"""Tables and figures of He et al. 2015, arXiv 1512.03385; the numbers are those of papers/he2015.json."""
