"""The shared-key attention against torch's own."""

import pytest
import torch

from rag.attention import shared_key_attention


@pytest.mark.parametrize(("heads", "groups"), [(4, 1), (4, 2), (3, 3)])
def test_it_is_attention(heads: int, groups: int) -> None:
    torch.manual_seed(0)
    query = torch.randn(2, heads, 5, 8, requires_grad=True)
    key, value = torch.randn(2, groups, 7, 8), torch.randn(2, groups, 7, 8)
    seen = torch.rand(2, 1, 5, 7) < 0.7
    seen[..., 0] = True
    mask = torch.zeros(seen.shape).masked_fill(~seen, -1e9)
    ours, weights = shared_key_attention(None, query, key, value, mask, scaling=0.3)
    theirs = torch.nn.functional.scaled_dot_product_attention(
        query,
        key.repeat_interleave(heads // groups, dim=1),
        value.repeat_interleave(heads // groups, dim=1),
        attn_mask=seen,
        scale=0.3,
    )
    assert weights is None
    assert torch.allclose(ours.transpose(1, 2), theirs, atol=1e-5)
    gradient = torch.autograd.grad(ours.square().sum(), query)[0]
    expected = torch.autograd.grad(theirs.square().sum(), query)[0]
    assert torch.allclose(gradient, expected, atol=1e-4)
