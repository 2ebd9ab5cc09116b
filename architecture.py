"""Every choice of the transformer's architecture, and which of them go together."""
import re
from dataclasses import dataclass, fields

from files import InputError

CHOICES = {"ffn": ("mlp", "sinekan"), "norm": ("pre", "post"), "positions": ("rotary", "sinusoidal", "learned"),
           "embeddings": ("separate", "tied", "shared"), "activation": ("gelu", "relu", "swiglu")}


@dataclass
class ModelConfig:
    """
    The architecture, and the longest sequences that it was trained for; stored in the checkpoint. See config/default.py for the meaning.

    A field with a default here is younger than the first checkpoints; the default is what these have.
    """
    src_vocab: int  # tokens in the source vocabulary
    tgt_vocab: int
    src_max_len: int  # longest source, end token included
    tgt_max_len: int  # longest target, start and end token included
    d_model: int
    heads: int
    encoder_layers: int
    decoder_layers: int
    d_ff: int
    dropout: float
    encoder_d_model: int = 0
    encoder_d_ff: int = 0
    norm: str = "pre"
    positions: str = "rotary"
    embeddings: str = "separate"
    activation: str = "gelu"
    bias: bool = False
    ffn: str = "mlp"
    kan_layers: str = "all"
    kan_grid: int = 8
    kan_ff_dims: str = ""
    kan_end: bool = False
    kan_embed: bool = False

    def __post_init__(self):
        for field in fields(self):
            value, least = getattr(self, field.name), 0 if field.name.startswith("encoder_d_") else 1
            if field.type is int and value < least:
                raise InputError(f"{field.name}: got {value}, wanted at least {least}")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise InputError(f"{name}: got {getattr(self, name)!r}, wanted {', '.join(known)}")
        for name in ("encoder_d_model", "d_model"):
            if getattr(self, name) % (2 * self.heads):
                raise InputError(f"{name}: {getattr(self, name)} does not divide into {self.heads} heads of an even width")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout: got {self.dropout}, wanted at least 0 and less than 1")
        if self.embeddings == "shared" and (self.width("encoder") != self.d_model or self.src_vocab != self.tgt_vocab):
            raise InputError("embeddings: shared needs one vocabulary and one width, "
                             f"these are {self.src_vocab} x {self.width('encoder')} and {self.tgt_vocab} x {self.d_model}")
        self.kan_places()
        if not re.fullmatch(r"|none|[1-9]\d*( [1-9]\d*)*", self.kan_ff_dims):
            raise InputError(f'kan_ff_dims: got {self.kan_ff_dims!r}, wanted widths such as "256" or "256 256", "none" or ""')
        if self.kan_end and (not self.has_kan("decoder", self.decoder_layers - 1) or self.kan_ff_dims in ("", "none")):
            raise InputError("kan_end: needs ffn=sinekan in the last layer of the decoder, and widths in kan_ff_dims")
        if self.kan_end and self.embeddings != "separate":
            raise InputError(f"kan_end: the head reads a width of {self.end_width}, so embeddings cannot be {self.embeddings}")

    def width(self, side):
        return self.encoder_d_model or self.d_model if side == "encoder" else self.d_model

    def kan_places(self):
        """The layers with ffn=sinekan, a set of (side, index). InputError where kan_layers does not say which."""
        count = {"encoder": self.encoder_layers, "decoder": self.decoder_layers}
        places = set()
        for word in self.kan_layers.split() or [""]:
            match = re.fullmatch(r"(all)|(encoder|decoder)(?::(last|\d+))?", word)
            if not match or match[3] and match[3] != "last" and not 1 <= int(match[3]) <= count[match[2]]:
                raise InputError(f"kan_layers: got {word!r}, wanted all, encoder, decoder, decoder:last or encoder:N"
                                 + (f" with N from 1 to {count[match[2]]}" if match else ""))
            for side in (match[2],) if match[2] else count:
                layers = [count[side] - 1 if match[3] == "last" else int(match[3]) - 1] if match[3] else range(count[side])
                places.update((side, layer) for layer in layers)
        return places

    def has_kan(self, side, layer):
        """Is this layer's feed-forward network a SineKAN?"""
        return self.ffn == "sinekan" and (side, layer) in self.kan_places()

    def ffn_widths(self, side, layer):
        """Widths from the input of a layer's feed-forward network to its output."""
        width, hidden = self.width(side), self.encoder_d_ff or self.d_ff if side == "encoder" else self.d_ff
        if not self.has_kan(side, layer):
            return [width, hidden, width]
        dims = [max(1, round(hidden / self.kan_grid))]  # as many weights as the MLP has
        if self.kan_ff_dims:
            dims = [int(width) for width in self.kan_ff_dims.split() if width != "none"]
        return [width, *dims] if self.ends(side, layer) else [width, *dims, width]

    def ends(self, side, layer):
        """Is this the layer whose SineKAN has no way round it and a width of its own? See kan_end."""
        return self.kan_end and (side, layer) == ("decoder", self.decoder_layers - 1)

    @property
    def end_width(self):
        """Width that the head reads."""
        return self.ffn_widths("decoder", self.decoder_layers - 1)[-1]


# the settings that make an architecture: a checkpoint can only be gone on from where they agree
ARCHITECTURE = [field.name for field in fields(ModelConfig)
                if field.name not in ("src_vocab", "tgt_vocab", "src_max_len", "tgt_max_len", "dropout")]
