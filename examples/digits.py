"""Train two models on scikit-learn's handwritten digits, keep the better one, and report on it."""

from typing import Annotated

import numpy as np
from pydantic import BaseModel
from sklearn.base import ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import train_test_split
from zenml import log_metadata, pipeline, step
from zenml.types import HTMLString

from examples.digits_report import Mistake, render


class Evaluation(BaseModel):
    """How a model did on the digits that it was not trained on."""

    model: str
    accuracy: float
    predicted: list[int]
    confusion: list[list[int]]


# ZenML draws a histogram of every one-dimensional array. Nobody looks at those of the labels, and
# importing matplotlib would take longer than the step.
@step(enable_artifact_visualization=False)
def load() -> tuple[Annotated[np.ndarray, "images"], Annotated[np.ndarray, "labels"]]:
    """Load 1797 digits of 8 by 8 pixels, each pixel's ink between 0 and 1."""
    digits = load_digits()
    print(f"loaded {len(digits.target)} digits")
    return digits.data / digits.data.max(), digits.target


@step(enable_artifact_visualization=False)
def split(
    images: np.ndarray, labels: np.ndarray, test_size: float, seed: int
) -> tuple[
    Annotated[np.ndarray, "train_images"],
    Annotated[np.ndarray, "test_images"],
    Annotated[np.ndarray, "train_labels"],
    Annotated[np.ndarray, "test_labels"],
]:
    """Keep a part of the digits back for testing, with every digit equally frequent in both."""
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, labels, test_size=test_size, random_state=seed, stratify=labels
    )
    print(f"{len(train_labels)} digits to train on, {len(test_labels)} to test on")
    return train_images, test_images, train_labels, test_labels


@step
def train_logistic_regression(
    images: np.ndarray, labels: np.ndarray, regularization: float = 1.0
) -> Annotated[ClassifierMixin, "logistic_regression"]:
    """Train a linear model."""
    model = LogisticRegression(C=1 / regularization, solver="newton-cg").fit(images, labels)
    print(f"trained a logistic regression in {model.n_iter_.max()} iterations")
    return model


@step
def train_random_forest(
    images: np.ndarray, labels: np.ndarray, seed: int, trees: int = 100
) -> Annotated[ClassifierMixin, "random_forest"]:
    """Train a forest of decision trees."""
    model = RandomForestClassifier(n_estimators=trees, random_state=seed).fit(images, labels)
    depth = max(tree.get_depth() for tree in model.estimators_)
    print(f"trained a random forest of {trees} trees, the deepest with {depth} levels")
    return model


@step
def evaluate(
    model: ClassifierMixin, images: np.ndarray, labels: np.ndarray
) -> Annotated[Evaluation, "evaluation"]:
    """Have a model read the digits that were kept back."""
    predicted = model.predict(images)
    evaluation = Evaluation(
        model=type(model).__name__,
        accuracy=float((predicted == labels).mean()),
        predicted=predicted.tolist(),
        confusion=confusion_matrix(labels, predicted, labels=range(10)).tolist(),
    )
    wrong = int((predicted != labels).sum())
    print(f"{evaluation.model}: accuracy {evaluation.accuracy:.2%}, {wrong} of {len(labels)} wrong")
    return evaluation


@step
def pick(
    models: list[ClassifierMixin], evaluations: list[Evaluation]
) -> tuple[
    Annotated[ClassifierMixin, "best_model"],
    Annotated[Evaluation, "best_evaluation"],
]:
    """Keep the model with the better accuracy; the first one when they are equal."""
    model, best = max(
        zip(models, evaluations, strict=True), key=lambda candidate: candidate[1].accuracy
    )
    print(f"picked {best.model} with accuracy {best.accuracy:.2%}")
    log_metadata({"picked": best.model} | {e.model: e.accuracy for e in evaluations})
    log_metadata({"accuracy": best.accuracy}, artifact_name="best_model", infer_artifact=True)
    return model, best


@step
def report(
    evaluations: list[Evaluation],
    best: Evaluation,
    images: np.ndarray,
    labels: np.ndarray,
    mistakes_shown: int = 12,
) -> Annotated[HTMLString, "report"]:
    """Compare the models, and show what the better one mixes up."""
    wrong = np.flatnonzero(np.array(best.predicted) != labels)
    mistakes = [
        Mistake(
            images[i].reshape(8, 8).tolist(), actual=int(labels[i]), predicted=best.predicted[i]
        )
        for i in wrong[:mistakes_shown]
    ]
    print(f"reported on {len(labels)} digits, {len(wrong)} of them read wrong")
    scores = {evaluation.model: evaluation.accuracy for evaluation in evaluations}
    return HTMLString(render(scores, best.model, best.confusion, mistakes))


@pipeline
def classify_digits(test_size: float = 0.25, seed: int = 0) -> None:
    """Train two models side by side, and report on the better one."""
    images, labels = load()
    train_images, test_images, train_labels, test_labels = split(images, labels, test_size, seed)

    models = [
        train_logistic_regression(train_images, train_labels),
        train_random_forest(train_images, train_labels, seed),
    ]
    evaluations = [
        evaluate(models[0], test_images, test_labels, id="evaluate_logistic_regression"),
        evaluate(models[1], test_images, test_labels, id="evaluate_random_forest"),
    ]

    _, best = pick(models, evaluations)
    report(evaluations, best, test_images, test_labels)
