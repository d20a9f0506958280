"""The rotary embedding of every layer of a model, found out from the model itself.

A configuration says what a model's author called things; which elements of a query turn, in which
pairs and how fast is in the code. So the model is asked: `probe` has it compute the queries of a
few tokens at many positions, `rotary_fit` looks for the rotation that explains them. Where only a
configuration is at hand, a small model of the same class is asked (`small_model`): the embedding
depends on class and configuration, not on the weights.
"""

from __future__ import annotations

import functools
import weakref
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from torch import nn

from ..errors import InvalidArgument
from .probe import Answers, AskFailed, ask, text_config_of
from .rotary_fit import Rotation, fit_rotation
from .small_model import SIZES, small_model

# Their frequencies depend on the length of the text: keys of different ages would not agree. ("su"
# is what files of Phi-3 called longrope.)
_CHANGING = ("dynamic", "longrope", "su")
# Two probes of one embedding differ by rounding; this many radians at the longest shift are less
# than what float32 makes of an angle there.
_LONGEST_SHIFT, _SAME_ANGLE = 2.0**20, 0.1
# theta ** (-2j / dim) is off by this share in float32, whose exponents are rounded too.
_FORMULA_ROUNDING = 2e-6
_UNSEEN = "its attention was not seen"


@dataclass(frozen=True)
class LayerRotary:
    """How a layer's queries turn with the position.

    layout: "half-split" or "interleaved" pairs of the elements [first, first + dim), "none" (the
    layer knows no positions) or "unknown". theta or frequencies (radians per position of each
    pair) say how fast. reason: why nothing is known.
    """

    layout: str
    first: int = 0
    dim: int = 0
    theta: float | None = None
    frequencies: tuple[float, ...] | None = None
    reason: str = ""

    @property
    def known(self) -> bool:
        return self.layout != "unknown"

    def options(self) -> dict[str, Any]:
        """Keyword arguments for HeadCache.prefill and, but for `shift`, for rope_shift."""
        if self.layout in ("none", "unknown"):
            return {"shift": False}
        speed: dict[str, Any] = {"theta": self.theta}
        if self.frequencies is not None:
            speed = {"frequencies": np.array(self.frequencies)}
        return {
            **speed,
            "rotary_dim": self.dim,
            "layout": self.layout,
            **({"rotary_first": self.first} if self.first else {}),
        }

    def state(self) -> dict[str, Any]:
        """Plain values, for a file."""
        speeds = None if self.frequencies is None else list(self.frequencies)
        return {**asdict(self), "frequencies": speeds}

    @staticmethod
    def of_state(state: dict[str, Any]) -> LayerRotary:
        speeds = state["frequencies"]
        return LayerRotary(**{**state, "frequencies": None if speeds is None else tuple(speeds)})

    def same(self, other: LayerRotary) -> bool:
        """Whether both turn alike, but for the rounding of a probe. What is not known is the same
        only as what is not known either."""
        if (self.layout, self.first, self.dim) != (other.layout, other.first, other.dim):
            return False
        if self.layout in ("none", "unknown"):
            return True
        apart = np.abs(self._speeds() - other._speeds()).max()
        return bool(apart * _LONGEST_SHIFT < _SAME_ANGLE)

    def describe(self) -> str:
        """A few words for reports and errors."""
        if self.layout == "none":
            return "no rotation"
        if self.layout == "unknown":
            return f"unknown rotation ({self.reason})"
        speeds = "own frequencies" if self.theta is None else f"theta {self.theta:g}"
        return (
            f"{self.layout} pairs of elements {self.first}..{self.first + self.dim - 1}, {speeds}"
        )

    def _speeds(self) -> np.ndarray:
        if self.frequencies is not None:
            return np.array(self.frequencies)
        assert self.theta is not None
        return _formula(self.theta, self.dim)


# Services make a cache for every request: a model is asked once for each state of its embedding.
_of_model: weakref.WeakKeyDictionary[nn.Module, tuple[Any, tuple[LayerRotary, ...]]]
_of_model = weakref.WeakKeyDictionary()


def rotary_of(source: Any) -> tuple[LayerRotary, ...]:
    """The rotary embedding of every layer. source: a model, or a configuration.

    A model is asked itself, once for each state of its embedding; it must not be in use by another
    thread meanwhile. Where that fails, and for a configuration, a small model of the same class is
    asked. Embeddings that change with the length of the text are refused.
    """
    config = text_config_of(source)
    _refuse_changing(config)
    if not isinstance(source, nn.Module):
        return _rotary_of_config(_Described(config.to_json_string(use_diff=False), config))
    state = _embedding_state(source)
    known = _of_model.get(source)
    if known is None or known[0] != state:
        try:
            known = state, _asked(source, config)
        except AskFailed:
            described = _Described(config.to_json_string(use_diff=False), config)
            known = state, _rotary_of_config(described)
        _of_model[source] = known
    return known[1]


def _embedding_state(model: nn.Module) -> Any:
    """Changes when the model's numbers change their type, or its frequencies are written to."""
    frequencies = [b for name, b in model.named_buffers() if "inv_freq" in name]
    return next(model.parameters()).dtype, [
        # Tensors of a model made in inference mode count no versions: their numbers are compared.
        tuple(b.tolist()) if b.is_inference() else (b.data_ptr(), b._version)
        for b in frequencies
    ]


def require_same_rotary(
    saved: tuple[LayerRotary, ...], now: tuple[LayerRotary, ...], what: str
) -> None:
    """Refuses what was planned for one embedding and is to be used with another."""
    if len(saved) != len(now):
        raise InvalidArgument(
            f"{what} is of a model of {len(saved)} layers, this one has {len(now)}"
        )
    for index, (one, other) in enumerate(zip(saved, now, strict=True)):
        if not one.same(other):
            raise InvalidArgument(
                f"{what} is of another model: layer {index} has {one.describe()} there and "
                f"{other.describe()} here"
            )


@dataclass(frozen=True)
class _Described:
    """A configuration that is equal to others of the same text."""

    text: str
    config: Any = field(compare=False)


@functools.lru_cache(maxsize=16)  # services make a cache for every request
def _rotary_of_config(described: _Described) -> tuple[LayerRotary, ...]:
    failed = []
    for sizes in SIZES:
        try:
            return _asked(small_model(described.config, sizes), described.config)
        except AskFailed as error:
            failed.append(str(error))
    return (LayerRotary("unknown", reason=failed[0]),) * _layers(described.config)


def _asked(model: nn.Module, config: Any) -> tuple[LayerRotary, ...]:
    found = _found(ask(model), config)
    # A layer that was seen and fits nothing is asked again, without a batch's rounding.
    return (
        found
        if all(layer.known or layer.reason == _UNSEEN for layer in found)
        else _found(ask(model, together=False), config)
    )


def _layers(config: Any) -> int:
    return getattr(config, "num_hidden_layers", None) or 0


def _found(answers: Answers, config: Any) -> tuple[LayerRotary, ...]:
    thetas = sorted(_thetas(config.to_dict()))
    found = []
    for index in range(_layers(config)):
        if index not in answers.of_layer:
            found.append(LayerRotary("unknown", reason=_UNSEEN))
            continue
        rotation = fit_rotation(answers.positions, answers.of_layer[index], answers.noise)
        found.append(_named(rotation, answers.named, thetas))
    if thetas and all(layer.layout == "none" for layer in found):
        reason = "the model's queries are the same at all positions it is given"
        found = [LayerRotary("unknown", reason=reason)] * len(found)
    return tuple(found)


def _named(rotation: Rotation | None, named: list[np.ndarray], thetas: list[float]) -> LayerRotary:
    """What was measured, in the model's own numbers where they agree."""
    if rotation is None:
        return LayerRotary("unknown", reason="its queries depend on the position in another way")
    if rotation.layout == "none":
        return LayerRotary("none")
    speeds, off = rotation.frequencies, rotation.precision
    own = [each for each in named if len(each) == len(speeds)]
    best = min(own, key=lambda each: np.abs(each - speeds).max(), default=None)
    if best is not None and np.abs(best - speeds).max() <= off:
        speeds, off = best, 0.0
    place: dict[str, Any] = {
        "layout": rotation.layout,
        "first": rotation.first,
        "dim": rotation.dim,
    }
    for theta in thetas:
        by_theta = _formula(theta, rotation.dim)
        if (np.abs(by_theta - speeds) <= off + _FORMULA_ROUNDING * by_theta).all():
            return LayerRotary(**place, theta=theta)
    return LayerRotary(**place, frequencies=tuple(speeds.tolist()))


def _formula(theta: float, dim: int) -> np.ndarray:
    return theta ** (-np.arange(0, dim, 2) / dim)


def _thetas(values: Any, name: str = "") -> set[float]:
    """Numbers of a configuration that may be the base of an embedding."""
    if isinstance(values, dict):
        return set().union(*(_thetas(value, str(key)) for key, value in values.items()))
    is_base = isinstance(values, (int, float)) and not isinstance(values, bool) and values > 1
    return {float(values)} if is_base and ("theta" in name or "base" in name) else set()


def _refuse_changing(config: Any) -> None:
    for kind in _rope_types(config.to_dict()):
        if kind in _CHANGING:
            raise InvalidArgument(
                f"rope_type is '{kind}', whose frequencies change with the length of the text: "
                "retrieval needs fixed ones; use a DynamicCache for this model"
            )


def _rope_types(values: Any, inside: bool = False) -> list[str]:
    """The kinds of embedding that a configuration names: for all layers, or by layer type."""
    if not isinstance(values, dict):
        return []
    own = values.get("rope_type", values.get("type")) if inside else None
    nested = [
        kind
        for name, value in values.items()
        for kind in _rope_types(value, inside or name in ("rope_scaling", "rope_parameters"))
    ]
    return nested if own is None else [own, *nested]
