"""What networks log: losses, accuracy, perplexity, errors, and the yardstick of knowing nothing (documented.md §8)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from networks import Batch, Given, fitted, lean, of_type
from torch import Tensor, nn

from tuner.data import Digits, SklearnTable, TensorLoader
from tuner.models import MLP, LanguageModel, MLPRegressor, Network, RNNLanguageModel
from tuner.models.metrics import accuracy, label_entropy, perplexity

pytestmark = pytest.mark.usefixtures("one_thread")


def evaluated(model: Network, batches: Sequence[Batch]) -> dict[str, float]:
    (logged,) = lean().validate(model, datamodule=Given(batches, batches), verbose=False)
    return dict(logged)


# ---- functions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 7, 100])
def test_the_perplexity_of_a_uniform_guess_is_the_number_of_symbols(size: int) -> None:
    cross_entropy = nn.functional.cross_entropy(torch.zeros(3, size), torch.tensor([0, 1, size - 1]))
    assert perplexity(cross_entropy).item() == pytest.approx(size, rel=1e-5)


def test_the_perplexity_of_a_perfect_guess_is_one() -> None:
    cross_entropy = nn.functional.cross_entropy(1000 * torch.eye(4), torch.arange(4))
    assert perplexity(cross_entropy).item() == 1.0


@pytest.mark.parametrize(
    ("counts", "entropy"),
    [
        ([3, 3, 3, 3], math.log(4)),
        ([5, 5], math.log(2)),
        ([0, 9, 0], 0.0),
        ([2, 1, 1], 1.5 * math.log(2)),  # ½ ln 2 + 2 · ¼ ln 4
        ([2, 1, 1, 0], 1.5 * math.log(2)),  # a class that never occurs adds nothing
        ([20, 10, 10], 1.5 * math.log(2)),
    ],
)
def test_the_entropy_of_labels_is_that_of_their_shares(counts: list[int], entropy: float) -> None:
    assert label_entropy(torch.tensor(counts)).item() == pytest.approx(entropy, abs=1e-12)


def test_accuracy_is_the_share_of_right_answers() -> None:
    logits = torch.tensor([[1.0, 2, 0], [3, 2, 1], [0, 0, 1], [0, 5, 6]])
    assert accuracy(logits, torch.tensor([1, 1, 2, 0])).item() == 0.5


# ---- classifiers ---------------------------------------------------------------------------------------------------


def test_a_classifier_logs_means_over_samples_not_over_batches() -> None:
    torch.manual_seed(0)
    model = MLP(hidden_units=8, input_shape=[12], num_classes=10).eval()
    x, y = torch.randn(10, 12), torch.arange(10)
    logged = evaluated(model, [(x[:7], y[:7]), (x[7:], y[7:])])
    logits = model.eval()(x)
    by_hand = (torch.logsumexp(logits, dim=1) - logits[torch.arange(10), y]).mean().item()
    assert logged["val_loss"] == pytest.approx(by_hand, rel=1e-5)
    assert logged["val_acc"] == pytest.approx(sum(logits[i].argmax().item() == i for i in range(10)) / 10)


def test_a_classifier_logs_the_entropy_of_all_validation_labels() -> None:
    model = MLP(hidden_units=4, input_shape=[12], num_classes=3)
    labels = [[0, 0, 0], [0, 1], [1, 2, 2]]  # 4, 2 and 2 of 8
    batches = [(torch.randn(len(y), 12), torch.tensor(y)) for y in labels]
    assert evaluated(model, batches)["val_label_entropy"] == pytest.approx(1.5 * math.log(2), rel=1e-6)
    assert evaluated(model, batches[:1])["val_label_entropy"] == pytest.approx(0, abs=1e-6)  # counted anew


def test_a_classifier_that_knows_only_the_shares_of_classes_has_the_entropy_as_its_loss() -> None:
    model = MLP(hidden_units=4, depth=0, input_shape=[12], num_classes=3)
    (output,) = of_type(model, nn.Linear)
    nn.init.zeros_(output.weight)
    with torch.no_grad():
        output.bias.copy_(torch.tensor([0.5, 0.25, 0.25]).log())
    logged = evaluated(model, [(torch.randn(8, 12), torch.tensor([0, 0, 0, 0, 1, 1, 2, 2]))])
    assert logged["val_loss"] == pytest.approx(logged["val_label_entropy"], rel=1e-6)


def test_a_fit_and_a_test_of_a_classifier_log_the_documented_names() -> None:
    model = MLP(hidden_units=16)
    trainer = fitted(model, Digits(batch_size=256))
    names = {"train_loss", "train_acc", "val_loss", "val_acc", "val_label_entropy"}
    assert trainer.callback_metrics.keys() == names
    assert trainer.callback_metrics["val_label_entropy"].item() == pytest.approx(math.log(10), rel=1e-3)
    (tested,) = trainer.test(model, datamodule=Digits(), verbose=False)
    assert tested.keys() == {"test_loss", "test_acc"}


def test_the_loader_of_tensors_suits_every_step() -> None:
    model = MLP(hidden_units=4, input_shape=[12], num_classes=10)
    loader = TensorLoader((torch.randn(10, 12), torch.arange(10)), 4)
    predicted = torch.cat(lean().predict(model, dataloaders=loader))  # type: ignore[arg-type]
    assert predicted.shape == (10, 10)
    assert torch.allclose(predicted.sum(dim=1), torch.ones(10))


# ---- language models -----------------------------------------------------------------------------------------------


class Parrot(LanguageModel):
    """Says that symbol x + 1 follows x, as surely as it is told to; its state says nothing."""

    def __init__(self, sureness: float) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.hparams.update({"carry_state": True, "vocab_size": 6})
        self.net = self.build(6)

    def build(self, vocab_size: int) -> nn.Module:
        return Successor(vocab_size, self.hparams["sureness"])


class Successor(nn.Module):
    def __init__(self, vocab_size: int, sureness: float) -> None:
        super().__init__()
        self.vocab_size, self.sureness = vocab_size, sureness

    def forward(self, x: Tensor, state: Any = None) -> Any:
        successor = nn.functional.one_hot((x + 1) % self.vocab_size, self.vocab_size)
        return self.sureness * successor.float(), [torch.zeros(1, len(x), 1)]


COUNTED = torch.arange(20) % 6


def test_the_perplexity_of_a_network_that_guesses_uniformly_is_v_and_of_a_perfect_one_1() -> None:
    batch = (COUNTED[None, :-1], COUNTED[None, 1:])
    assert evaluated(Parrot(0.0), [batch])["val_perplexity"] == pytest.approx(6, rel=1e-6)
    assert evaluated(Parrot(1000.0), [batch])["val_perplexity"] == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("stage", ["val", "test"])
def test_perplexity_is_the_exponential_of_the_mean_over_all_symbols_of_all_batches(stage: str) -> None:
    # sure of 2 symbols that come, and of 1 that does not, in batches of 2 and of 1 symbols; ln Σ = ln(e² + 5)
    batches = [(torch.tensor([[0, 1]]), torch.tensor([[1, 2]])), (torch.tensor([[2]]), torch.tensor([[5]]))]
    model, trainer = Parrot(2.0), lean()
    run = {"val": trainer.validate, "test": trainer.test}[stage]
    (logged,) = run(model, datamodule=Given(batches, batches), verbose=False)
    nats = math.log(math.exp(2) + 5) - 2 * 2 / 3
    assert logged[f"{stage}_loss"] == pytest.approx(nats, rel=1e-6)
    assert logged[f"{stage}_perplexity"] == pytest.approx(math.exp(nats), rel=1e-6)


def test_a_language_model_logs_the_entropy_of_all_validation_symbols() -> None:
    batches = [(torch.tensor([[5, 0, 0]]), torch.tensor([[0, 0, 1]])), (torch.tensor([[1]]), torch.tensor([[2]]))]
    model = Parrot(1.0)
    assert evaluated(model, batches)["val_label_entropy"] == pytest.approx(1.5 * math.log(2), rel=1e-6)  # 0, 0, 1, 2
    assert evaluated(model, batches[1:])["val_label_entropy"] == pytest.approx(0, abs=1e-6)  # counted anew


def test_a_fit_and_a_test_of_a_language_model_log_the_documented_names() -> None:
    batch = (COUNTED[None, :-1], COUNTED[None, 1:])
    model = RNNLanguageModel(hidden_units=4)
    data = Given([batch], vocab_size=6)
    trainer = fitted(model, data)
    assert trainer.callback_metrics.keys() == {"train_loss", "val_loss", "val_perplexity", "val_label_entropy"}
    (tested,) = trainer.test(model, datamodule=data, verbose=False)
    assert tested.keys() == {"test_loss", "test_perplexity"}


def test_predictions_of_a_language_model_are_probabilities_of_the_next_symbols() -> None:
    model = RNNLanguageModel(hidden_units=4, vocab_size=6)
    x = COUNTED[None, :7]
    (predicted,) = lean().predict(model, datamodule=Given([(x, x)]))  # type: ignore[misc]
    assert isinstance(predicted, Tensor)
    assert predicted.shape == (1, 7, 6)
    assert torch.allclose(predicted, torch.softmax(model(x), dim=2))


# ---- regressors ----------------------------------------------------------------------------------------------------


def planted_regressor(output: float) -> MLPRegressor:
    """Predicts this standardised target, whatever it sees."""
    model = MLPRegressor(depth=0, input_shape=[2], target_mean=100.0, target_std=20.0)
    (layer,) = of_type(model, nn.Linear)
    nn.init.zeros_(layer.weight)
    nn.init.constant_(layer.bias, output)
    return model


def test_predictions_are_in_the_units_of_the_data() -> None:
    model, x = planted_regressor(1.5), torch.randn(3, 2)
    assert model(x).tolist() == [130.0] * 3  # 100 + 1.5 · 20
    assert model.predict_step((x, torch.zeros(3)), 0).tolist() == [130.0] * 3
    assert model.predict_step(x, 0).tolist() == [130.0] * 3


def test_the_loss_is_in_standardised_units_and_the_absolute_error_in_those_of_the_data() -> None:
    # 130 against 130, 110, 70: errors 0, 1, 3 deviations; in batches of 2 and 1
    batches = [(torch.randn(2, 2), torch.tensor([130.0, 110])), (torch.randn(1, 2), torch.tensor([70.0]))]
    logged = evaluated(planted_regressor(1.5), batches)
    assert logged["val_loss"] == pytest.approx(10 / 3)
    assert logged["val_mae"] == pytest.approx(80 / 3)


def test_predicting_the_mean_of_the_training_targets_has_a_loss_of_one() -> None:
    data = SklearnTable("diabetes")
    model = MLPRegressor(hidden_units=4, depth=0)
    model.take_shapes(data)
    (layer,) = of_type(model, nn.Linear)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    assert evaluated(model, [data.splits().train])["val_loss"] == pytest.approx(1.0, rel=1e-5)


def test_a_regressor_learns_the_standardised_target_however_large_its_units() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 3)
    y = 1e6 + 1e4 * (x[:, 0] - x[:, 1])
    data = Given([(x, y)] * 20, [(x, y)], input_shape=[3], target_mean=y.mean().item(), target_std=y.std().item())
    model = MLPRegressor(depth=0, lr_schedule="none", weight_decay=0.0)
    trainer = fitted(model, data, max_epochs=5)
    assert trainer.callback_metrics.keys() == {"train_loss", "train_mae", "val_loss", "val_mae"}
    assert trainer.callback_metrics["val_loss"] < 1e-3
    assert (model(x) - y).abs().mean() < 0.05 * 1e4


def test_targets_of_shape_b_1_are_not_compared_with_all_predictions() -> None:
    x, y = torch.randn(4, 2), torch.tensor([60.0, 80, 120, 140])
    by_vector = evaluated(planted_regressor(0.0), [(x, y)])
    assert by_vector["val_loss"] == pytest.approx((4 + 1 + 1 + 4) / 4)
    x[:, 0] = (y - 100) / 20
    model = planted_regressor(0.0)
    with torch.no_grad():
        of_type(model, nn.Linear)[0].weight[0, 0] = 1.0  # every prediction is right
    assert evaluated(model, [(x, y)])["val_loss"] == pytest.approx(0, abs=1e-9)
    assert evaluated(model, [(x, y[:, None])])["val_loss"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("deviation", [0.0, -1.0, float("nan")])
def test_a_target_without_deviation_is_refused(deviation: float) -> None:
    with pytest.raises(ValueError, match=f"target_std must be above 0, but got {deviation}"):
        MLPRegressor(input_shape=[2], target_mean=0.0, target_std=deviation)
    data = Given([(torch.randn(4, 2), torch.ones(4))], input_shape=[2], target_mean=1.0, target_std=deviation)
    with pytest.raises(ValueError, match="target_std must be above 0"):
        fitted(MLPRegressor(), data)


def test_a_target_mean_of_zero_counts_as_given() -> None:
    model = MLPRegressor(input_shape=[2], target_mean=0.0, target_std=1.0)
    assert model(torch.randn(3, 2)).shape == (3,)
