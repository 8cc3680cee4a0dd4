"""Gradients to the words that a text encoder reads."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from unlearning_core.hosts.base import DiffusersModel
from unlearning_core.hosts.families import load
from unlearning_core.tiny import MODEL
from unlearning_core.vocabulary import Vocabulary, embedded

PROMPT = "a cat face"


@pytest.fixture(scope="module")
def model() -> DiffusersModel:
    return load(MODEL)


def test_an_embedded_prompt_is_the_encoded_one(model: DiffusersModel) -> None:
    [cond] = model.encode([PROMPT])
    found = model.embedded(PROMPT)
    assert torch.allclose(found.cond.tokens, cond.tokens, atol=1e-5) and not cond.tokens.requires_grad
    assert found.tokens.shape == found.vectors.shape[:1]


def test_the_gradient_is_that_of_the_encoders_table(model: DiffusersModel) -> None:
    """A small change of a token's row moves the conditioning as the gradients at its places say."""
    layer = model.pipeline.text_encoder.get_input_embeddings()
    found = model.embedded(PROMPT)
    token = int(found.tokens[1])
    weights = torch.randn(found.cond.tokens.shape, generator=torch.Generator().manual_seed(0))
    [gradient] = torch.autograd.grad((found.cond.tokens * weights).sum(), [found.vectors])
    change = torch.randn(layer.weight.shape[1], generator=torch.Generator().manual_seed(1)) * 1e-3

    def moved(sign: int) -> Tensor:
        with torch.no_grad():
            layer.weight[token] += sign * change
            try:
                return (model.encode([PROMPT])[0].tokens * weights).sum()
            finally:
                layer.weight[token] -= sign * change

    expected = (moved(1) - moved(-1)) / 2
    assert torch.allclose((gradient[found.tokens == token] @ change).sum(), expected, rtol=0.02, atol=1e-4)
    assert abs(expected) > 1e-3


def test_an_encoder_that_does_not_ask_its_table_is_refused() -> None:
    with pytest.raises(ValueError, match="does not use its table of words"):
        embedded(nn.Embedding(2, 2), lambda: torch.zeros(1))


def test_words_against_a_gradient_come_in_order() -> None:
    generator = torch.Generator().manual_seed(0)
    vocabulary = Vocabulary([*"abcdef"], torch.randn(6, 4, generator=generator))
    gradient = torch.randn(2, 4, generator=generator)
    rows = vocabulary.against(gradient, 4)
    assert rows.shape == (2, 4)
    for row, own in zip(rows, gradient, strict=True):
        products = vocabulary.embeddings @ own
        assert (products[row].diff() >= 0).all()
        assert products[row].max() <= products.sort().values[3]
    assert vocabulary.against(gradient, 99).shape == (2, 6)
