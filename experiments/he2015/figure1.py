"""Figure 1: a deeper plain net has the higher training error, and so the higher test error, on CIFAR-10."""

from experiments.experiment import Experiment, Row

EXPERIMENT = Experiment(
    name="he2015.figure1",
    title="Made deeper, a plain net trains worse: CIFAR-10",
    rows=(
        Row("plain20", "plain-20", "cifar10:plain20"),
        Row("plain56", "plain-56", "cifar10:plain56", against="plain20"),
    ),
    form="train_test",
)
