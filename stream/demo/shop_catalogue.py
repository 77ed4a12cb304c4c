"""What the synthetic shop sells and who visits it: plain data, built into items and personas without any randomness."""

from __future__ import annotations

from dataclasses import dataclass

# category -> (five brands from cheap to dear, product types from most to least wanted with the middle brand's price)
ASSORTMENT: dict[str, tuple[str, str]] = {
    "camping": (
        "Alder Birch Cedar Drift Ember",
        "Tent:220 Sleeping Bag:140 Camping Stove:70 Camping Mat:60 Headlamp:35 Camp Chair:50 Cooler:90 Lantern:40"
        " Hammock:55 Tarp:45",
    ),
    "hiking": (
        "Fell Gorge Harrow Isard Kulm",
        "Hiking Boots:160 Backpack:130 Trekking Poles:75 Rain Jacket:150 Water Filter:45 Hiking Socks:18 Map Case:22"
        " Gaiters:38 Sun Hat:28 Compass:32",
    ),
    "running": (
        "Aero Bolt Dash Fleet Swift",
        "Running Shoes:130 Running Socks:15 Sports Watch:210 Running Vest:80 Energy Gels:20 Foam Roller:30"
        " Running Shorts:40 Hydration Belt:35 Reflective Band:12 Massage Gun:120",
    ),
    "fashion": (
        "Lark Maren Noor Oslo Pearl",
        "Sneakers:95 Denim Jacket:110 Sweater:75 T-Shirt:25 Scarf:30 Leather Belt:45 Sunglasses:85 Beanie:22"
        " Handbag:140 Dress:100",
    ),
    "gaming": (
        "Glitch Hexa Ion Jinx Krypt",
        "Game Console:450 Controller:65 Gaming Headset:95 Gaming Mouse:60 Mechanical Keyboard:130 Gaming Chair:240"
        " Racing Wheel:280 Mouse Pad:20 Charging Dock:35 Capture Card:150",
    ),
    "electronics": (
        "Lumen Mono Nexa Orbit Pulse",
        "Smartphone:600 Earbuds:120 Tablet:380 Power Bank:40 Smart Speaker:90 Monitor:260 USB Hub:35 Webcam:70"
        " External Drive:85 Phone Case:20",
    ),
    "kitchen": (
        "Anise Basil Clove Dill Fennel",
        "Chef Knife:90 Cutting Board:40 Cast Iron Pan:65 Stand Mixer:320 Food Processor:150 Spice Set:35 Wok:55"
        " Knife Sharpener:30 Pasta Machine:80 Apron:25",
    ),
    "coffee": (
        "Arabo Brisa Crema Dorado Eterna",
        "Coffee Grinder:120 Coffee Beans:16 Espresso Machine:420 Milk Frother:45 Pour Over Set:50 Gooseneck Kettle:75"
        " Coffee Scale:40 Espresso Cups:28 Descaler:12 French Press:38",
    ),
    "kids": (
        "Bunny Cub Duckling Foal Gosling",
        "Stroller:350 Car Seat:220 Building Blocks:45 Balance Bike:90 Rain Cover:30 Puzzle:18 Night Light:25"
        " Baby Monitor:110 Plush Toy:22 Lunch Box:20",
    ),
    "books": (
        "Acorn Beacon Cypress Delta Elm",
        "Picture Book:14 Cookbook:32 Thriller:16 Travel Guide:22 Fantasy Novel:18 Biography:24 Garden Almanac:28"
        " Comic:12 Science Book:26 Diary:15",
    ),
    "garden": (
        "Fern Grove Hazel Iris Juniper",
        "Lawn Mower:380 Garden Hose:45 Raised Bed:120 Potting Soil:14 Pruning Shears:35 Seed Box:18 Watering Can:25"
        " Greenhouse:290 Compost Bin:75 Garden Gloves:16",
    ),
    "home": (
        "Kelp Linen Moss Nest Opal",
        "Sofa Throw:55 Table Lamp:70 Bed Linen:90 Candle:18 Wall Clock:45 Storage Box:28 Rug:160 Cushion:30"
        " Picture Frame:24 Side Table:110",
    ),
}
BRANDS = 5
TYPES = 10
PRICE_OF_BRAND = (0.7, 0.85, 1.0, 1.25, 1.6)

RULES: tuple[tuple[str, str], ...] = (
    ("cedar-tent", "cedar-sleeping-bag"),
    ("harrow-hiking-boots", "harrow-hiking-socks"),
    ("dash-running-shoes", "dash-energy-gels"),
    ("noor-sneakers", "noor-t-shirt"),
    ("ion-game-console", "ion-controller"),
    ("nexa-smartphone", "nexa-phone-case"),
    ("clove-chef-knife", "clove-knife-sharpener"),
    ("crema-coffee-grinder", "crema-coffee-beans"),
    ("duckling-stroller", "duckling-rain-cover"),
    ("hazel-raised-bed", "hazel-potting-soil"),
    ("cypress-picture-book", "duckling-plush-toy"),
    ("moss-table-lamp", "moss-side-table"),
)


@dataclass(frozen=True, slots=True)
class Product:
    """One article of the shop."""

    item_id: str
    name: str
    category: str
    kind: str
    price: float


@dataclass(frozen=True, slots=True)
class Persona:
    """A kind of visitor.

    Parameters
    ----------
    name
        Visible name; visitors are called ``<name>-0001``, and one of them by a first name.
    visitor
        First name of the persona's most active visitor.
    tastes
        Share of interest by category; what is missing to 1 is spread over all categories.
    hour, hours
        Middle (hour of day, UTC) and half width of the time when they usually come.
    channels
        Weights of direct, search, email, social, ads, referral.
    spend
        Readiness to buy (1 = average), which also draws to dearer brands.
    """

    name: str
    visitor: str
    tastes: dict[str, float]
    hour: float
    hours: float
    channels: tuple[float, float, float, float, float, float]
    spend: float


PERSONAS: tuple[Persona, ...] = (
    Persona("camper", "anna", {"camping": 0.50, "hiking": 0.28}, 18, 3, (4, 3, 2, 0.5, 0.5, 1), 1.3),
    Persona("runner", "ben", {"running": 0.55, "fashion": 0.20}, 6, 2, (2, 2, 1, 4, 2, 0.5), 0.9),
    Persona("gamer", "chloe", {"gaming": 0.55, "electronics": 0.25}, 23, 3, (3, 2, 0.3, 3, 2, 1), 1.0),
    Persona("cook", "dev", {"kitchen": 0.48, "coffee": 0.30}, 11, 3, (2, 4, 3, 1, 0.5, 0.5), 1.5),
    Persona("parent", "emma", {"kids": 0.52, "books": 0.25}, 20, 2, (2, 2, 3, 2, 2, 0.3), 1.1),
    Persona("gardener", "frank", {"garden": 0.52, "home": 0.26}, 9, 3, (3, 4, 2, 0.3, 1, 1), 0.7),
)

CHANNELS: tuple[tuple[str, str, str], ...] = (
    ("(direct)", "(none)", "(direct)"),
    ("google", "organic", "(organic)"),
    ("newsletter", "email", "weekly-picks"),
    ("instagram", "social", "summer-look"),
    ("google", "cpc", "brand-search"),
    ("blog", "referral", "partner-review"),
)


def products() -> list[Product]:
    """Return all products, category by category, type by type, brand by brand.

    Returns
    -------
    list of Product
        ``len(ASSORTMENT) * TYPES * BRANDS`` products; position ``(category * TYPES + type) * BRANDS + brand``.

    Examples
    --------
    >>> [product.item_id for product in products()[:2]]
    ['alder-tent', 'birch-tent']
    """
    shelf = []
    for category, (brands, line) in ASSORTMENT.items():
        for entry in _types(line):
            kind, price = entry
            for brand, factor in zip(brands.split(), PRICE_OF_BRAND, strict=True):
                slug = f"{brand} {kind}".lower().replace(" ", "-")
                shelf.append(Product(slug, f"{brand} {kind}", category, kind, round(price * factor, 2)))
    return shelf


def _types(line: str) -> list[tuple[str, float]]:
    """Split ``"Tent:220 Sleeping Bag:140"`` into names and prices."""
    types, words = [], []
    for word in line.split():
        name, colon, price = word.partition(":")
        words.append(name)
        if colon:
            types.append((" ".join(words), float(price)))
            words = []
    return types
