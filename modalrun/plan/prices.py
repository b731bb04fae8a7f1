"""Modal's list prices as data, with their date. To change a price, change it here and the date."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal


@dataclass(frozen=True)
class PriceTable:
    """What a sandbox costs, in USD.

    Attributes:
        as_of: The date of the prices.
        source: Where they were read.
        cpu: One physical core for a second.
        memory: One GiB for a second.
        gpus: One GPU of a type for a second.
        regions: The factor on the whole bill for a region that is asked for.
        other_region: The factor for a region that is not in `regions`.
    """

    as_of: str
    source: str
    cpu: Decimal
    memory: Decimal
    gpus: Mapping[str, Decimal]
    regions: Mapping[str, Decimal] = field(default_factory=dict)
    other_region: Decimal = Decimal(1)


_BROAD, _NARROW = Decimal("1.5"), Decimal("1.75")

LIST_PRICES = PriceTable(
    as_of="2026-09-01",
    source="modal.com/pricing (sandbox rates)",
    cpu=Decimal("0.00003942"),
    memory=Decimal("0.00000667"),
    gpus={
        "T4": Decimal("0.000164"),
        "L4": Decimal("0.000222"),
        "A10": Decimal("0.000306"),
        "L40S": Decimal("0.000542"),
        "A100": Decimal("0.000583"),
        "A100-40GB": Decimal("0.000583"),
        "A100-80GB": Decimal("0.000694"),
        "RTX-PRO-6000": Decimal("0.000842"),
        "H100": Decimal("0.001097"),
        "H100!": Decimal("0.001097"),
        "H200": Decimal("0.001261"),
        "B200": Decimal("0.001736"),
        "B200+": Decimal("0.001736"),
        "B300": Decimal("0.001972"),
        # Modal chooses the type; a ceiling has to hold for the dearest.
        "ANY": Decimal("0.001972"),
    },
    # Modal has changed these factors twice in a year; later quotes are lower (1.15 for "us").
    regions=dict.fromkeys(("us", "eu", "uk", "ap"), _BROAD),
    other_region=_NARROW,
)
