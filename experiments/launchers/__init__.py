"""Ways to carry out runs: on this machine (`local`), or on a cluster (`ray_cluster`)."""
