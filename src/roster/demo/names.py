"""Owns the vocabulary of the made-up product: places, clients, pages, words; knows no person and no time."""

from __future__ import annotations

from dataclasses import dataclass

PRODUCT = "Quillhaven"
SITE = "https://quillhaven.example"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a session comes from; `offset_h` is the local time's distance from UTC."""

    country: str
    code: str
    region: str
    city: str
    offset_h: int
    weight: int


@dataclass(frozen=True, slots=True)
class Client:
    """What a session runs on; an empty `browser` is the mobile app."""

    device: str
    os: str
    os_version: str
    browser: str
    version: int
    source: str
    weight: int


@dataclass(frozen=True, slots=True)
class Action:
    """Something done on a page; `context` is the inside of a JSON object, for custom actions."""

    target: str
    kind: str = "click"
    context: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """A page by its view name; `path` with `{}` carries a number. Load times scatter around `load_ms`."""

    name: str
    path: str
    load_ms: int
    actions: tuple[Action, ...] = ()


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


PLACES = (
    Place("United States", "US", "New York", "New York", -5, 18),
    Place("United States", "US", "California", "San Francisco", -8, 12),
    Place("United States", "US", "Texas", "Austin", -6, 6),
    Place("Germany", "DE", "Bavaria", "München", 1, 10),
    Place("Germany", "DE", "Berlin", "Berlin", 1, 7),
    Place("United Kingdom", "GB", "England", "London", 0, 10),
    Place("France", "FR", "Île-de-France", "Paris", 1, 8),
    Place("Spain", "ES", "Catalonia", "Barcelona", 1, 4),
    Place("Brazil", "BR", "São Paulo", "São Paulo", -3, 5),
    Place("India", "IN", "Karnataka", "Bengaluru", 5, 7),
    Place("Japan", "JP", "Tokyo", "Tokyo", 9, 4),
    Place("Canada", "CA", "Ontario", "Toronto", -5, 4),
    Place("Poland", "PL", "Lesser Poland", "Kraków", 1, 3),
    Place("Sweden", "SE", "Stockholm County", "Stockholm", 1, 2),
)
CLIENTS = (
    Client("desktop", "Windows", "11", "Chrome", 136, "browser", 30),
    Client("desktop", "Mac OS X", "15.5", "Chrome", 136, "browser", 20),
    Client("desktop", "Mac OS X", "15.5", "Safari", 18, "browser", 11),
    Client("desktop", "Windows", "11", "Edge", 136, "browser", 12),
    Client("desktop", "Linux", "6.8", "Firefox", 138, "browser", 5),
    Client("desktop", "Windows", "10", "Firefox", 138, "browser", 4),
    Client("tablet", "iOS", "18.5", "Safari", 18, "browser", 3),
    Client("mobile", "iOS", "18.5", "Mobile Safari", 18, "browser", 8),
    Client("mobile", "Android", "15", "Chrome Mobile", 136, "browser", 7),
)
MOBILE_APPS = (
    Client("mobile", "iOS", "18.5", "", 0, "ios", 5),
    Client("mobile", "Android", "15", "", 0, "android", 5),
)

LANDING = Page("/", "/", 900, (Action("Start for free"), Action("Watch the tour"), Action("See pricing")))
PRICING = Page("/pricing", "/pricing", 800, (Action("Yearly billing"), Action("Compare plans")))
BLOG = Page("/blog/?", "/blog/{}", 1100, (Action("Share"),))
SIGNUP = Page("/signup", "/signup", 700)
LOGIN = Page("/login", "/login", 600, (Action("Log in"),))
ONBOARDING = Page("/onboarding", "/onboarding", 1000)
DASHBOARD = Page("/dashboard", "/app/dashboard", 1800, (Action("Last 30 days"), Action("Pin notebook")))
BILLING = Page("/settings/billing", "/app/settings/billing", 900)
CHECKOUT = Page("/checkout", "/app/checkout", 1300)

CREATE_ACCOUNT = Action("Create account")
INVITE = Action("Invite teammates", "click")
ONBOARDED = Action("onboarding_completed", "custom", '"steps":4')
UPGRADE = Action("Upgrade plan")

APP_PAGES = (
    (DASHBOARD, 20),
    (Page("/notebooks", "/app/notebooks", 1200, (Action("New notebook"), Action("Sort by owner"))), 22),
    (
        Page(
            "/notebooks/?",
            "/app/notebooks/{}",
            1500,
            (Action("Add block"), Action("Share notebook"), Action("notebook_saved", "custom", '"blocks":12')),
        ),
        28,
    ),
    (
        Page(
            "/reports",
            "/app/reports",
            2600,
            (Action("Run report"), Action("report_exported", "custom", '"format":"csv","rows":1840')),
        ),
        13,
    ),
    (Page("/search", "/app/search", 700, (Action("Search"), Action("Open result"))), 9),
    (Page("/settings/team", "/app/settings/team", 900, (INVITE, Action("Change role"))), 4),
    (Page("/help", "/app/help", 800, (Action("Contact support"),)), 4),
)
ERRORS = (
    ("TypeError", "Cannot read properties of undefined (reading 'blocks')", "source"),
    ("NetworkError", "Failed to fetch /api/notebooks", "network"),
    ("TimeoutError", "Report took longer than 30 s", "custom"),
    ("QuotaError", "Storage quota exceeded", "console"),
)
CAMPAIGNS = ("newsletter", "search", "partner", "conference")

FIRST_NAMES = _words(
    "Anna Lukas Zoë Renée Mateo Priya Kenji Olivia Noah Emma Liam Ava Mia Ethan Sofia Lucas Amélie Jürgen Bjørn "
    "Søren Łukasz Agnieszka Inês João Thaís Arjun Deepa Hana Yuki Siobhán Aoife Grace Henry Isla Jack Chloé "
    "François Günther Petra Ingrid Óscar Lucía Diego Carmen Ravi Meera Haruto Sakura Ella Owen"
)
LAST_NAMES = _words(
    "Berg Müller Schäfer O'Neill Dubois Lefèvre García Núñez Fernández Silva Souza Conceição Sharma Iyer Tanaka "
    "Sato Suzuki Smith Johnson Brown Taylor Wilson Clark Walker Young King Wright Scott Green Adams Baker Nowak "
    "Wójcik Kowalska Lindqvist Åström Sørensen Weiß Krüger Moreau Petit Rossi Vogel Brandt D'Angelo MacLeod Murphy "
    "Reyes Cole"
)
COMPANY_HEADS = _words(
    "Amber Birch Cedar Copper Coral Crest Dune Ember Fern Flint Frost Glen Granite Harbor Hazel Heron Iron Juniper "
    "Kestrel Lark Linden Maple Marsh Meadow Onyx Orchard Pebble Pine Quartz Raven Ridge River Sable Slate Sparrow "
    "Spruce Thistle Tidal Willow Wren"
)
COMPANY_TAILS = _words(
    "Analytics Bakery Biotech Cargo Clinics Credit Design Digital Energy Foods Freight Games Health Homes Insurance "
    "Labs Learning Legal Logistics Media Mobility Motors Music Networks Optics Outdoors Partners Pay Pharma Press "
    "Realty Retail Robotics Security Software Sports Studios Systems Travel Works"
)
COMPANY_FORMS = ("", "", "", "", " GmbH", " Inc.", ", Inc.", " Ltd", " SARL", " & Søn", ' "Group"')
INDUSTRIES = ("software", "finance", "healthcare", "retail", "logistics", "education", "media", "manufacturing")
MAIL_HOSTS = ("mailbox.example", "postbox.example", "inbox.example")
OWNERS = ("Priya Raman", "Tom Ellery", 'Dana "Dee" Whitlock', "Marc Lefèvre", "Vogel, Karin")
PLANS = ("free", "starter", "pro", "enterprise")
SEAT_PRICE = {"free": 0, "starter": 9, "pro": 19, "enterprise": 35}
