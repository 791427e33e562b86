"""The simulated grid itself: sites in tiers, storages, communities with users and applications; made from a seed."""

from __future__ import annotations

from typing import Final

import msgspec

from collectors.simulator.chance import Weighted, generator, zipf

GIBIBYTE: Final = 2**30
TERABYTE: Final = 10**12
PETABYTE: Final = 10**15
SHARED_VO: Final = "sim-all"
"""VO of what belongs to no single community, such as downtimes: the simulated grid's `all`."""
VO_NAMES: Final = (
    "aurora",
    "borealis",
    "cygnus",
    "draco",
    "eridanus",
    "fornax",
    "gemma",
    "hydra",
    "indus",
    "lyra",
    "mira",
    "norma",
)
COUNTRIES: Final = {
    "CH": 1,
    "DE": 1,
    "FR": 1,
    "IT": 1,
    "UK": 0,
    "ES": 1,
    "NL": 1,
    "US": -6,
    "PL": 1,
    "SE": 1,
    "CA": -5,
    "JP": 9,
    "CZ": 1,
    "CN": 8,
    "BR": -3,
    "FI": 2,
    "AU": 10,
    "KR": 9,
    "RO": 2,
    "PT": 0,
}
"""Countries of sites, the frequent ones first, with their hours from UTC."""
TIER_RATES: Final = (8.0, 4.0, 1.0, 0.25)
"""Jobs of a site relative to others, by tier."""
TIER_DISKS: Final = (60 * PETABYTE, 12 * PETABYTE, 2 * PETABYTE, 0)
"""Disk of a site by tier, bytes; tier 3 has none of its own."""
TIER_NODES: Final = (400, 120, 30, 4)
TIER_VO_SHARE: Final = (1.0, 0.8, 0.5, 0.0)
"""Chance that a site serves a VO, by tier; each serves at least one."""


class Application(msgspec.Struct, frozen=True):
    """What a community runs.

    Attributes:
        name: program or job type.
        group: who runs it.
        wall: median wall time, seconds.
        spread: of the logarithm of wall time.
        efficiency: mean CPU time per wall time and processor.
        processors: per job.
        memory: per processor, bytes.
        failing: share of jobs that fail by themselves.
        share: of the community's jobs.
        human: started by people rather than by a production system.
        gpus: per job, at the sites that have some: those of tier 0.
    """

    name: str
    group: str
    wall: float
    spread: float
    efficiency: float
    processors: int
    memory: int
    failing: float
    share: float
    human: bool
    gpus: int = 0


APPLICATIONS: Final = (
    Application("simulation", "production", 21_600, 0.35, 0.94, 8, 2 * GIBIBYTE, 0.020, 0.30, human=False),
    Application("reconstruction", "production", 14_400, 0.45, 0.86, 8, 2 * GIBIBYTE, 0.030, 0.16, human=False, gpus=1),
    Application("merge", "production", 1_500, 0.60, 0.48, 1, GIBIBYTE, 0.015, 0.10, human=False),
    Application("analysis", "analysis", 2_700, 1.00, 0.72, 1, 3 * GIBIBYTE // 2, 0.055, 0.34, human=True),
    Application("ntuple", "analysis", 5_400, 0.80, 0.66, 1, 2 * GIBIBYTE, 0.045, 0.06, human=True),
    Application("test", "operations", 180, 0.40, 0.35, 1, GIBIBYTE // 2, 0.010, 0.04, human=False),
)


class Vo(msgspec.Struct, frozen=True):
    """A community.

    Attributes:
        name: begins with `sim-`, so that nothing simulated is ever taken for real.
        applications: what it runs, weighted.
        users: analysis users, the busiest first, weighted by Zipf's law.
        robots: who runs an application that no person starts, by application name.
    """

    name: str
    applications: Weighted[Application]
    users: Weighted[str]
    robots: dict[str, str]


class Storage(msgspec.Struct, frozen=True):
    """An area of one community on the storage of one site.

    Attributes:
        name: such as `SIM-T1-DE-1_AURORA_DISK`.
        site: its site's name.
        vo: its community's name.
        endpoint: address of the storage service.
        media: disk or tape.
        total: size, bytes.
        doors: hosts through which transfers go, with their protocol.
    """

    name: str
    site: str
    vo: str
    endpoint: str
    media: str
    total: int
    doors: tuple[tuple[str, str], ...]


class Site(msgspec.Struct, frozen=True):
    """A site.

    Attributes:
        name: such as `SIM-T1-DE-1`.
        country: two letters.
        tier: 0 to 3.
        zone: hours from UTC.
        rate: mean of finished jobs per hour.
        busy: mean share of its processors in use.
        quality: efficiency of its jobs relative to others'.
        elements: compute elements.
        nodes: worker nodes.
        vos: communities it serves, weighted.
    """

    name: str
    country: str
    tier: int
    zone: int
    rate: float
    busy: float
    quality: float
    elements: tuple[str, ...]
    nodes: tuple[str, ...]
    vos: Weighted[Vo]


class Grid(msgspec.Struct, frozen=True):
    """Everything that stays the same while time passes."""

    seed: int
    vos: tuple[Vo, ...]
    sites: tuple[Site, ...]
    storages: tuple[Storage, ...]


def build_grid(sites: int, vos: int, seed: int, jobs_per_hour: float = 10.0) -> Grid:
    """Make a grid; equal arguments make equal grids.

    Args:
        sites: how many, at least 1: one tier 0, about a tenth tier 1, a fifth tier 3, the rest tier 2.
        vos: how many communities, at least 1.
        seed: any whole number.
        jobs_per_hour: finished jobs per hour and site, mean over all sites.

    Raises:
        ValueError: there are no sites, no communities or a negative rate.
    """
    if sites < 1 or vos < 1 or jobs_per_hour < 0:
        message = f"a grid needs a site, a VO and a rate that is not negative, got {sites}, {vos} and {jobs_per_hour}"
        raise ValueError(message)
    communities = tuple(_vo(number, 12 + sites) for number in range(vos))
    tiers = _tiers(sites)
    scale = jobs_per_hour * sites / sum(TIER_RATES[tier] for tier in tiers)
    made: list[Site] = []
    seen: dict[tuple[int, str], int] = {}
    for number, tier in enumerate(tiers):
        chance = generator(seed, "site", number)
        country = "CH" if tier == 0 else Weighted(tuple(COUNTRIES), zipf(len(COUNTRIES), 0.7)).choose(chance)
        rank = seen[tier, country] = seen.get((tier, country), 0) + 1
        made.append(_site(f"SIM-T{tier}-{country}-{rank}", country, tier, scale, communities, seed))
    storages = tuple(storage for site in made for storage in _storages(site, seed))
    return Grid(seed=seed, vos=communities, sites=tuple(made), storages=storages)


def _tiers(sites: int) -> list[int]:
    first = min(sites - 1, max(1, round(sites * 0.1)))
    third = (sites - 1 - first) // 4
    return [0] + [1] * first + [2] * (sites - 1 - first - third) + [3] * third


def _vo(number: int, users: int) -> Vo:
    short = VO_NAMES[number] if number < len(VO_NAMES) else f"vo{number + 1}"
    robots = {application.name: f"{short}-{application.group}" for application in APPLICATIONS if not application.human}
    return Vo(
        name=f"sim-{short}",
        applications=Weighted(APPLICATIONS, [application.share for application in APPLICATIONS]),
        users=Weighted([f"{short}-user{rank + 1:03d}" for rank in range(users)], zipf(users)),
        robots=robots,
    )


def _site(name: str, country: str, tier: int, scale: float, vos: tuple[Vo, ...], seed: int) -> Site:
    chance = generator(seed, "site", name)
    domain = f"{name.lower()}.example"
    size = chance.lognormvariate(0, 0.25) if tier else 1.0
    served = [vo for vo in vos if chance.random() < TIER_VO_SHARE[tier]] or [chance.choice(vos)]
    return Site(
        name=name,
        country=country,
        tier=tier,
        zone=COUNTRIES[country],
        rate=TIER_RATES[tier] * scale * size,
        busy=chance.uniform(0.55, 0.85),
        quality=chance.uniform(0.92, 1.02),
        elements=tuple(f"ce{number + 1:02d}.{domain}" for number in range((4, 3, 2, 1)[tier])),
        nodes=tuple(f"wn{number + 1:04d}.{domain}" for number in range(max(2, round(TIER_NODES[tier] * size)))),
        vos=Weighted(served, [1 / (vos.index(vo) + 1.5) for vo in served]),
    )


def _storages(site: Site, seed: int) -> list[Storage]:
    made: list[Storage] = []
    host = f"se.{site.name.lower()}.example"
    disk = TIER_DISKS[site.tier]
    doors = tuple((f"door{number}.{host}", "davs" if number % 2 else "root") for number in range(1, 5))
    for vo in site.vos.items if disk else ():
        short = vo.name.removeprefix("sim-").upper()
        share = disk // len(site.vos.items)
        size = round(share * generator(seed, "storage", site.name, vo.name).uniform(0.6, 1.1))
        areas = [("disk", size)] + ([("tape", 4 * size)] if site.tier < 2 else [])  # noqa: PLR2004  # the tiers with tape.
        made += [
            Storage(
                name=f"{site.name}_{short}_{media.upper()}",
                site=site.name,
                vo=vo.name,
                endpoint=f"davs://{host}:443/{vo.name}/{media}",
                media=media,
                total=total // TERABYTE * TERABYTE,
                doors=doors,
            )
            for media, total in areas
        ]
    return made
