"""The parts that networks.py puts together: rows for categories, a residual block, tokens, attention.

Letters of shapes: B rows, N numbers, C category columns, T tokens (N + C + 1), W width, H heads, V rows of a table.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

HIDDEN_FACTOR = 2  # units inside a residual block for each of its width, as rtdl has it
FORWARD_FACTOR = 4 / 3  # units inside a transformer's feed-forward part, whose ReGLU has twice as many; the paper's


class Linear(nn.Linear):
    """A linear layer that may have no inputs: it then gives its biases."""

    def reset_parameters(self) -> None:
        """Draw the first weights as torch does; of no inputs, none."""
        if self.in_features:
            super().reset_parameters()
        else:
            nn.init.zeros_(self.bias)

    def __call__(self, x_BN: Tensor) -> Tensor:
        """Say that a tensor comes back, which torch's own types do not."""
        return cast("Tensor", super().__call__(x_BN))


def dropped(x: Tensor, module: nn.Module) -> Tensor:
    """Drop a share of the values while a module is trained, `module.dropout` of them; asked, none at no cost."""
    return functional.dropout(x, cast("float", module.dropout)) if module.training and module.dropout else x


class CategoryRows(nn.Module):
    """A table with a row of numbers for every category of every column, one column's rows after the other's.

    Row 0 of each column stands for a category that is unknown or missing. `weight` is [sum of vocabularies, width].
    """

    offsets: Tensor

    def __init__(self, vocabularies: tuple[int, ...], width: int, std: float) -> None:
        super().__init__()
        self.std = std
        self.weight = nn.Parameter(torch.empty(sum(vocabularies), width))
        starts = [sum(vocabularies[:column]) for column in range(len(vocabularies))]
        self.register_buffer("offsets", torch.tensor(starts, dtype=torch.int32), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw rows from a normal distribution; a deviation of 0 begins with nothing."""
        nn.init.normal_(self.weight, std=self.std) if self.std else nn.init.zeros_(self.weight)

    def forward(self, categories_BC: Tensor) -> Tensor:
        """Give each category's row, [B, C, W]."""
        return functional.embedding(categories_BC + self.offsets, self.weight)

    def summed(self, categories_BC: Tensor) -> Tensor:
        """Give the sum of each row's categories, [B, W]."""
        if not len(self.offsets):
            return self.weight.new_zeros(len(categories_BC), self.weight.shape[1])
        return functional.embedding_bag(categories_BC + self.offsets, self.weight, mode="sum")


class HashedRows(nn.Module):
    """A table of 2**bits rows that the categories of all columns share by their hash, summed; a slot below 0 has none.

    Rows begin at 0, as those of the compiled mlp. `weight` has one row more than the table, for what is missing: torch
    wants a place to pass over, and learns nothing there.
    """

    def __init__(self, bits: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2**bits + 1, width))

    def forward(self, slots_BC: Tensor) -> Tensor:
        """Give the sum of each row's slots, [B, W]."""
        nothing = len(self.weight) - 1
        slots_BC = torch.where(slots_BC < 0, nothing, slots_BC)
        passed_over = nothing if self.training else None  # its row is 0: adding it is three times as fast
        return functional.embedding_bag(slots_BC, self.weight, mode="sum", padding_idx=passed_over)


class ResidualBlock(nn.Module):
    """x + Linear(Dropout(ReLU(Linear(LayerNorm(x))))): a block of the paper's ResNet, with LayerNorm.

    Gorishniy et al. have batch or layer norm there by choice. Layer norm looks at one row only, so that a training
    shared among processes is the one of a single process, and an answer does not depend on the rows around it.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = Linear(width, HIDDEN_FACTOR * width)
        self.down = Linear(HIDDEN_FACTOR * width, width)
        self.dropout = dropout

    def forward(self, x_BW: Tensor) -> Tensor:
        """Give the block's output, [B, W]."""
        hidden = functional.relu(self.up(self.norm(x_BW)))
        return x_BW + self.down(dropped(hidden, self))


class Tokenizer(nn.Module):
    """A token for each column, and one in front that the answer is read from.

    A number's token is x * weight + bias of its column, a category's its row + bias of its column.
    """

    def __init__(self, numbers: int, vocabularies: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(numbers, width))
        self.bias = nn.Parameter(torch.empty(numbers + len(vocabularies), width))
        self.answer = nn.Parameter(torch.empty(width))
        for parameter in (self.weight, self.bias, self.answer):
            most = width**-0.5  # as the paper's code draws them
            nn.init.uniform_(parameter, -most, most) if parameter.numel() else None
        self.categories = CategoryRows(vocabularies, width, std=width**-0.5)

    def forward(self, numbers_BN: Tensor, categories_BC: Tensor) -> Tensor:
        """Give the tokens, [B, T, W]."""
        numbers_BNW = numbers_BN[:, :, None] * self.weight
        tokens_BTW = torch.cat([numbers_BNW, self.categories(categories_BC)], dim=1) + self.bias
        return torch.cat([self.answer.expand(len(tokens_BTW), 1, -1), tokens_BTW], dim=1)


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017): of the first `asked` tokens to all of them."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (Linear(width, width) for _ in range(4))
        self.heads, self.dropout = heads, dropout

    def forward(self, x_BTW: Tensor, asked: int) -> Tensor:
        """Give what each asked token takes from all, [B, asked, W]."""
        query, key, value = self._split(self.query(x_BTW[:, :asked])), self.key(x_BTW), self.value(x_BTW)
        dropout = self.dropout if self.training else 0.0
        taken_BHTD = functional.scaled_dot_product_attention(
            query, self._split(key), self._split(value), dropout_p=dropout
        )
        return self.out(taken_BHTD.transpose(1, 2).flatten(2))

    def _split(self, x_BTW: Tensor) -> Tensor:
        """Give each head its share of the width, [B, H, T, W / H]."""
        return x_BTW.reshape(*x_BTW.shape[:2], self.heads, -1).transpose(1, 2)


class TransformerBlock(nn.Module):
    """x + Attention(norm(x)), then x + ReGLU feed-forward(norm(x)); the first block's attention has no norm.

    The norm before the first attention is left out as in the paper, which finds it harmful behind the tokenizer.
    """

    def __init__(self, width: int, heads: int, dropout: float, is_first: bool) -> None:
        super().__init__()
        hidden = int(width * FORWARD_FACTOR)
        self.attention = Attention(width, heads, dropout)
        self.attention_norm: nn.Module = nn.Identity() if is_first else nn.LayerNorm(width)
        self.forward_norm = nn.LayerNorm(width)
        self.up, self.down = Linear(width, 2 * hidden), Linear(hidden, width)
        self.dropout = dropout

    def forward(self, x_BTW: Tensor, asked: int) -> Tensor:
        """Give the first `asked` tokens behind the block, [B, asked, W]."""
        x_BTW = x_BTW[:, :asked] + self.attention(self.attention_norm(x_BTW), asked)
        value, gate = self.up(self.forward_norm(x_BTW)).chunk(2, dim=-1)
        return x_BTW + self.down(dropped(value * functional.relu(gate), self))

    def __call__(self, x_BTW: Tensor, asked: int) -> Tensor:
        """Say that a tensor comes back, which torch's own types do not."""
        return cast("Tensor", super().__call__(x_BTW, asked))


def activation_of(name: str) -> Any:
    """Give the function that "relu" or "tanh" names; it writes over what it is given, which spares a way to memory."""
    return {"relu": torch.relu_, "tanh": torch.tanh_}[name]
