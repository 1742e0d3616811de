"""Every word a domain's YAML may use. Reading this file is the five-minute tour of what Factotum can do for a domain.

Nothing here imports a model, Ray or an HTTP framework: a configuration can be read and checked anywhere, in milliseconds. The file
is long because it is the whole vocabulary in one place.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0.0)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]
Language = Literal["en", "ru"]
RESERVED = ("admin", "auth", "me", "notifications")  # no domain is called so: /v1/{name} is the gateway's own


class Word(BaseModel):
    """Frozen, and no word that is not written below is accepted."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


# ---------------------------------------------------------------- what an item is


class Tags(Word):
    """Several words an item bears at once (genres). One-hot for models, any-of for filters."""

    type: Literal["tags"]
    separator: str = ","
    missing: tuple[str, ...] = ()  # the tags of an item whose cell is empty
    phrase: str = "{value}"  # how a sentence names it: "the genre {value}"


class Category(Word):
    """Exactly one word (type)."""

    type: Literal["category"]
    missing: str = "Unknown"  # the category of an item whose cell is empty
    phrase: str = "{value}"


class Number(Word):
    """A quantity. `missing` says what an empty or unreadable cell becomes: the mean or median of the column, or a number."""

    type: Literal["number"]
    missing: Literal["mean", "median"] | float = "median"
    unreadable: tuple[str, ...] = ("", "Unknown", "NaN", "nan", "None", "null")  # cells that mean "missing"; others are bad rows
    low: float | None = None  # smallest allowed value; below it the row is bad
    high: float | None = None
    logarithm: bool = False  # models see log1p(value)
    prior: bool = False  # the catalogue's own popularity count: used where no event has been counted yet, labelled so
    capacity: bool = False  # how many of the item can be owned in all (seats, stock); what is left is told by it, not how items are alike
    phrase: str = "{value}"


Attribute = Annotated[Tags | Category | Number, Field(discriminator="type")]


class Items(Word):
    """The catalogue: an id, a title and these attributes."""

    noun: str = "item"
    nouns: str = "items"
    attributes: dict[Name, Attribute] = {}

    @property
    def capacity(self) -> Name | None:
        """The attribute that is marked `capacity`."""
        return next((name for name, attribute in self.attributes.items() if isinstance(attribute, Number) and attribute.capacity), None)

    @model_validator(mode="after")
    def _one_capacity(self) -> Self:
        marked = [name for name, attribute in self.attributes.items() if isinstance(attribute, Number) and attribute.capacity]
        if len(marked) > 1:
            raise ValueError(f"items.attributes: {', '.join(marked)} are all marked `capacity`; one at most is allowed")
        return self


# ---------------------------------------------------------------- what can happen between a user and an item

Meaning = Literal["seen", "liked", "disliked", "owned", "interest", "shown", "undo"]


class Kind(Word):
    """One kind of event. `weight` is its strength as a training signal (0: not trained on)."""

    means: tuple[Meaning, ...]
    weight: Annotated[float, Field(ge=0.0, le=100.0)] = 1.0


class Scale(Word):
    """Explicit ratings, where the domain has them. Values from `liked_from` up also mean liked, up to `disliked_to` disliked."""

    low: float
    high: float
    liked_from: float
    disliked_to: float
    unrated: tuple[str, ...] = ("", "-1", "-1.0", "0", "0.0")  # cells that mean "no rating given"

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low <= self.disliked_to < self.liked_from <= self.high:
            raise ValueError("expected low <= disliked_to < liked_from <= high")
        return self


class Events(Word):
    kinds: dict[Name, Kind]
    scale: Scale | None = None
    targets: tuple[Meaning, ...] = ("seen", "liked", "owned")  # an event that means one of these is what we try to foresee
    excluded: tuple[Meaning, ...] = ("seen", "disliked", "owned")  # items with such an event are not recommended again

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.kinds:
            raise ValueError("a domain needs at least one kind of event")
        return self


# ---------------------------------------------------------------- how raw files become tables


class Missing(Word):
    """How much dirt a run accepts: above this share of bad rows (and more than `rows` of them) it is refused."""

    share: Share = 0.02
    rows: Annotated[int, Field(ge=0)] = 10


class ItemFile(Word):
    """`files`: the names looked for in the data folder, first found wins (.csv, .csv.gz, .parquet).
    `columns`: for each canonical column the headings accepted for it."""

    files: tuple[str, ...]
    item: tuple[str, ...] = ("item", "item_id")
    title: tuple[str, ...] = ("title", "name")
    available: tuple[str, ...] = ("available",)
    attributes: dict[Name, tuple[str, ...]] = {}  # attribute -> headings; default: the attribute's own name
    unescape_html: bool = False  # titles hold entities such as &quot;
    encoding: str = "utf-8"


class EventFile(Word):
    """`kinds` maps what the kind's column holds (by name or by number) to a kind; `kind` is used where there is no such column."""

    files: tuple[str, ...]
    user: tuple[str, ...] = ("user", "user_id")
    item: tuple[str, ...] = ("item", "item_id")
    value: tuple[str, ...] = ("value", "rating")
    time: tuple[str, ...] = ("time", "event_time", "timestamp")
    kind_column: tuple[str, ...] = ("kind", "status", "event_type")
    kind: Name = "seen"
    kinds: dict[str, Name] = {}
    progress: tuple[str, ...] = ()  # a count such as watched episodes: an unreadable one makes the row bad
    order: Literal["none", "rows"] = "none"  # rows: there are no times, but the rows of a person stand in the order of time
    encoding: str = "utf-8"


class Source(Word):
    """`reader: tables` reads plain files of any domain; another name is a module of pipelines/sources/."""

    reader: Name = "tables"
    items: ItemFile
    events: Annotated[tuple[EventFile, ...], Field(min_length=1)]
    users: tuple[str, ...] = ()  # files with one row a user: user, attributes
    bad_rows: Missing = Missing()
    future_tolerance_s: Annotated[int, Field(ge=0)] = 86_400  # an event later than now by more than this is a bad row

    @model_validator(mode="after")
    def _one_order(self) -> Self:
        if len({file.order for file in self.events}) > 1:
            raise ValueError("events: either all files have `order: rows` or none has")
        return self


class Sample(Word):
    """Size of the world that pipelines/samples/<domain>.py makes from a seed."""

    users: Count = 2_000
    items: Count = 600
    seed: int = 7


# ---------------------------------------------------------------- what is learned


class Split(Word):
    """What is held out.

    `time`: the last `test` share of the events' time, before it a `label` share for the ranker, the same moments for everybody.
    Where a source has no times both are drawn at random for each user, and the report says "unordered".
    `last` (leave one out): the last event of each person is the test, the `labels` before it teach the ranker one by one. Only for a
    source that has an order, by times or by `order: rows`. It lets models see other people's future, which flatters them: it is
    there to be compared with published figures."""

    protocol: Literal["time", "last"] = "time"
    labels: Annotated[int, Field(ge=1, le=20)] = 1  # of `last`
    back: Annotated[int, Field(ge=0, le=3)] = 0  # so many test windows are put away unseen before: 1 measures on validation
    test: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.1
    label: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.1
    users: Annotated[int, Field(ge=10)] = 5_000  # at most so many users are evaluated, drawn by seed
    seed: int = 11


class PopularityModel(Word):
    model: Literal["popularity"]
    half_life_days: Positive | Literal["auto"] | None = "auto"  # an event's weight halves in so many days; none: all count alike;
    # auto: what best foresees the last tenth of the events learnt from
    demand: Annotated[float, Field(ge=0.0)] = 0.0  # an item will be asked for so many times as often as it is counted, and only what is
    # left of its capacity can be had: training/candidates/popularity.py has the formula. 0: what is left is not looked at


class ContentModel(Word):
    model: Literal["content"]
    title_words: Annotated[int, Field(ge=0, le=65_536)] = 4_096  # hashed words of the title; 0 leaves the title out
    dimensions: Annotated[int, Field(ge=8, le=512)] = 96  # of the reduced title vectors
    tag_weight: Positive = 1.0
    category_weight: Positive = 0.5
    number_weight: Positive = 0.25
    title_weight: Positive = 0.5
    history: Count = 50  # the last so many liked titles make a person's profile


class AlsModel(Word):
    """Hu, Koren, Volinsky 2008, by the library implicit."""

    model: Literal["als"]
    factors: Annotated[int, Field(ge=4, le=1024)] = 64
    iterations: Annotated[int, Field(ge=1, le=200)] = 15
    regularization: Positive = 0.05
    alpha: Positive = 10.0  # confidence = 1 + alpha * weight


class SasrecModel(Word):
    """Kang & McAuley 2018, trained with cross-entropy over all or sampled items.

    `positions`: what tells the order: an embedding of each place counted from the end, or a learned weight of each distance.
    `convolution`: each block first mixes so many of the last items into every position (0 = none). `average`: the weights that
    answer are the exponential average over the steps with this decay (0 = the last ones)."""

    model: Literal["sasrec"]
    dimensions: Annotated[int, Field(ge=8, le=1024)] = 64
    blocks: Annotated[int, Field(ge=1, le=16)] = 2
    heads: Annotated[int, Field(ge=1, le=16)] = 2
    window: Annotated[int, Field(ge=4, le=1024)] = 50  # the last so many items are read
    widening: Annotated[int, Field(ge=1, le=8)] = 4  # the feed-forward layers are so many times as wide as `dimensions`
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    learning_rate: Positive = 1e-3
    epochs: Annotated[int, Field(ge=1, le=1000)] = 10
    batch: Count = 128  # full windows a step; of shorter ones as many as fill the same space
    positions: Literal["end", "relative"] = "end"
    convolution: Annotated[int, Field(ge=0, le=32)] = 0
    average: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 while training where the processor does it natively
    negatives: Annotated[int, Field(ge=0)] = 0  # sampled negatives a batch; 0 = cross-entropy over all items
    patience: Annotated[int, Field(ge=1)] = 3  # epochs without a better validation before it stops
    seconds: Positive | None = None  # stop after so many seconds of training

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.dimensions % self.heads:
            raise ValueError(f"dimensions ({self.dimensions}) must be a multiple of heads ({self.heads})")
        return self


class NeighboursModel(Word):
    """Items taken by the same people; `following`: taken by them within `reach` places after (needs an order)."""

    model: Literal["neighbours"]
    neighbours: Annotated[int, Field(ge=1, le=1000)] = 100
    similarity: Literal["cosine", "tfidf", "bm25", "following"] = "cosine"
    reach: Annotated[int, Field(ge=1, le=50)] = 3
    history: Count = 50
    fade: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0  # an item n places before the last weighs fade ** n


class ClustersModel(Word):
    """The classic baseline: k-means of users, the most seen items of a cluster."""

    model: Literal["clusters"]
    clusters: Annotated[int, Field(ge=2, le=5000)] = 50
    top: Count = 200


CandidateModel = Annotated[
    PopularityModel | ContentModel | AlsModel | SasrecModel | NeighboursModel | ClustersModel, Field(discriminator="model")
]


class Choices(Word):
    """Try one of these."""

    choices: Annotated[tuple[float | int | str, ...], Field(min_length=1)]


class Between(Word):
    """Try a number from low to high, both included; `log`: evenly in the logarithm; `whole`: integers only."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError("expected low < high, and low > 0 where log is true")
        return self


class Search(Word):
    """What `factotum tune` tries for one source (or for `ranker`): a range for each of its words, and what a trial takes.

    `looks`: a model that learns by epochs is measured so many times on the way, each time a trial that is behind may be ended."""

    words: Annotated[dict[Name, Choices | Between], Field(min_length=1)]
    cpus: Positive = 1.0
    gpus: Annotated[float, Field(ge=0.0)] = 0.0  # a fraction: several trials share one
    looks: Annotated[int, Field(ge=1, le=100)] = 8


class Workers(Word):
    """So many workers of Ray Train learn one sequence model together, each with this share of the machines. They go through the same
    batches as one would, each through its part of every batch, so how many there are is no setting of the model."""

    workers: Annotated[int, Field(ge=2, le=256)]
    cpus: Positive = 1.0  # of each
    gpus: Annotated[float, Field(ge=0.0)] = 0.0


class Adopted(Word):
    """What a search found for one source, or for `ranker`: an entry of NAME.adopted.yaml, which stands beside the domain's YAML and is
    written and taken back by `factotum adopt`. `words` take the place of those of the YAML as long as it still says `over`."""

    words: Annotated[dict[Name, int | float | str], Field(min_length=1)]
    over: dict[Name, int | float | str | None]
    score: float  # of the trial, in the search's own measure
    before: float | None = None  # of the settings it takes the place of, if the search tried them
    trials: Count
    search: str  # its directory's name
    at: str  # when it was adopted, UTC


class Ranker(Word):
    """LightGBM lambdarank over the candidates of all sources."""

    candidates: Annotated[int, Field(ge=5, le=5000)] = 60  # a source brings so many
    trees: Annotated[int, Field(ge=1, le=5000)] = 200
    leaves: Annotated[int, Field(ge=2, le=1024)] = 31
    learning_rate: Positive = 0.05
    leaf_rows: Count = 50  # smallest number of rows in a leaf
    early_stopping: Count = 30
    users: Count = 20_000  # at most so many people make its training rows
    negatives: Count = 100  # rows kept of a person's candidates that were not chosen
    refit: bool = True  # after evaluation, learn once more from everything


class Protocol(Word):
    """One more way in which `factotum bench quality` measures the domain: other files, another split, other settings of some
    sources. What is left out is as in the domain itself."""

    events: tuple[EventFile, ...] = ()
    split: Split = Split()
    candidates: dict[Name, CandidateModel] = {}
    ranker: Ranker | None = None


class Published(Word):
    """What others publish for one of the domain's protocols; `factotum report` prints it beside our figures."""

    model: str
    source: str  # where it stands: a repository or a paper
    figures: dict[str, float]  # metric -> value, as in our own table (NDCG@10)
    note: str = ""


class Goal(Word):
    """What is to be reached. `figure`: a metric of `row` in the table of `part`; or `train_s` (seconds that its training took), `table_s`
    (those of the whole table: all training and the evaluation), `gain` (low end of the interval of the two stages over the best
    single source), `seconds` (of the whole benchmark)."""

    part: str = "own"
    row: str = "two-stage"
    figure: str
    least: float | None = None
    most: float | None = None

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if (self.least is None) == (self.most is None):
            raise ValueError("a goal has either `least` or `most`")
        return self


# ---------------------------------------------------------------- what is answered


class Exploration(Word):
    """A share of the places of a slate given to titles drawn evenly from the next `pool` ones; propensities say how likely."""

    cold: Share = 0.2  # for somebody of whom nothing is known
    warm: Share = 0.0
    pool: Count = 50


class Serving(Word):
    k: Annotated[int, Field(ge=1, le=100)] = 10  # how many, when the request does not say
    max_k: Annotated[int, Field(ge=1, le=1000)] = 100
    deadline_ms: Positive = 1_000.0
    diversity: Share = 0.0
    exploration: Exploration = Exploration()
    languages: tuple[Language, ...] = ("en", "ru")


class Call(Word):
    """A fixed address a brief asks for. `answers`: popular = the top list; similar = items like `key`; a source's name = that
    source alone for the user `key`."""

    method: Literal["GET", "POST"]
    path: Annotated[str, Field(pattern=r"^/[a-z0-9_/]+$")]
    answers: Name
    key: Name | None = None
    k: Annotated[int, Field(ge=1, le=1000)] = 10
    echo: dict[str, Name] = {}  # canonical word -> this call's word for it (item_id: anime_id)


class Variant(Word):
    """An arm of an experiment: its share of people and what it changes."""

    share: Annotated[float, Field(gt=0.0, le=1.0)]
    diversity: Share | None = None
    exploration: Share | None = None
    bundle: Literal["champion", "challenger"] = "champion"


# ---------------------------------------------------------------- chains of timed items


class Forms(Word):
    """A noun as it is counted: 1 concert, 2 concerts, 5 concerts (Russian tells the last two apart)."""

    one: str
    few: str
    many: str


class StopWords(Word):
    """What one language calls the things of a timetable; sentences about a route are made of these."""

    stop: Forms  # what a route is a chain of
    optional: Forms  # an event beside the programme
    hall: Forms
    artist: Forms
    composer: Forms
    work: Forms


class Label(Word):
    """A mark on stops: on those that bear one of `tags`, on those whose title holds one of `titles` (whatever the case of letters), and
    as `rule` says: `repeat` marks every stop whose programme is played more than once; `main` one stop a day, that in the hall with
    the most seats (then the dearest, the longest, the latest)."""

    words: dict[Language, str]  # how a sentence names a stop that bears it
    tags: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()
    rule: Literal["repeat", "main"] | None = None


class Itinerary(Word):
    """Items are stops with a beginning, an end and a hall, and people walk from one to the next."""

    zone: str  # of the clock on the wall: a name of the IANA data base
    day_begins: Annotated[int, Field(ge=0, le=23)] = 6  # the hour: what begins earlier belongs to the day before
    buffer_minutes: Annotated[int, Field(ge=0, le=240)] = 0  # spare time between two stops, unless the question says
    longest_minutes: Annotated[int, Field(ge=1, le=1_440)] = 360  # a stop lasts at most so long; what is open all day is none
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "RUB"  # ISO 4217
    minor_units: Annotated[int, Field(ge=1, le=1_000)] = 100  # so many kopecks are a rouble; prices are whole numbers of these
    words: dict[Language, StopWords]
    labels: dict[Name, Label] = {}
    seats_refresh_s: Annotated[float, Field(ge=0.1, le=3_600.0)] = 1.0  # each replica looks for new numbers of free seats so often
    #: What recommendations do with stops that do not fit beside what the person holds (tickets, a sure yes), and what recommendations and
    #: searches of routes do with those that have begun. left_out: they are not there (a route keeps tickets all the same); marked: they
    #: are, and `notes` name them. A timetable that is over is shown whole.
    clashing: Literal["left_out", "marked"] = "left_out"
    begun: Literal["left_out", "marked"] = "left_out"
    #: Where orders are sent; none: they are only stored.
    orders_to: Annotated[str, Field(pattern=r"^(mailto:[^@\s]+@[^@\s]+|https?://\S+)$")] | None = None

    @field_validator("zone")
    @classmethod
    def _known(cls, zone: str) -> str:
        try:
            ZoneInfo(zone)
        except (KeyError, OSError, ValueError):  # not found, a folder of the data base, or no relative path
            raise ValueError(f"{zone!r} is no time zone; names of the IANA data base are allowed, such as Asia/Yekaterinburg") from None
        return zone

    @model_validator(mode="after")
    def _spoken(self) -> Self:
        for name, label in self.labels.items():
            missing = set(self.words) - set(label.words)
            if missing:
                raise ValueError(f"labels.{name}: no words in {', '.join(sorted(missing))}; every language of `words` needs them")
        return self


class Job(Word):
    """What `factotum schedule` runs: a command at the times of a cron expression (UTC)."""

    run: Literal["run", "ingest", "featurize", "train", "evaluate", "publish", "score", "clean", "seats"]
    cron: Annotated[str, Field(pattern=r"^(\S+\s+){4}\S+$")]


class Domain(Word):
    """One domain, whole."""

    name: Name
    title: str
    items: Items
    events: Events
    source: Source
    sample: Sample = Sample()
    split: Split = Split()
    protocols: dict[Name, Protocol] = {}
    candidates: dict[Name, CandidateModel]
    ranker: Ranker | None = Ranker()
    search: dict[Name, Search] = {}
    published: dict[str, tuple[Published, ...]] = {}  # by the part of `factotum bench quality` that has the same protocol
    goals: tuple[Goal, ...] = ()
    workers: dict[Name, Workers] = {}  # sequence models that several workers learn together
    serving: Serving = Serving()
    #: open: anybody may ask, and send events, for people who have no account (a data set's ids); token: nobody may without one.
    #: What belongs to an account needs its token in either case.
    auth: Literal["open", "token"] = "token"
    calls: tuple[Call, ...] = ()
    itinerary: Itinerary | None = None
    experiment: dict[Name, Variant] = {}
    schedule: dict[Name, Job] = {}
    keep_versions: Count = 5  # `factotum clean` keeps so many bundles besides the aliased ones

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.name in RESERVED:
            raise ValueError(f"name: /v1/{self.name} is an address of the gateway's own; any name but {', '.join(RESERVED)} is allowed")
        kinds = self.events.kinds
        for name, protocol in self.protocols.items():
            for source in protocol.candidates:
                if source not in self.candidates:
                    raise ValueError(f"protocols.{name}: {source!r} is not among candidates ({', '.join(self.candidates)})")
        for file in (*self.source.events, *(file for protocol in self.protocols.values() for file in protocol.events)):
            for raw, kind in {**file.kinds, "kind": file.kind}.items():
                if kind not in kinds:
                    raise ValueError(f"source.events: {raw!r} becomes {kind!r}, which is not among events.kinds ({', '.join(kinds)})")
        for attribute in self.source.items.attributes:
            if attribute not in self.items.attributes:
                raise ValueError(f"source.items.attributes: {attribute!r} is not among items.attributes")
        if not any(model.model == "popularity" for model in self.candidates.values()):
            raise ValueError("candidates: one of them must be of model popularity, the last resort of every answer")
        for source, words in [*self.candidates.items(), *(pair for said in self.protocols.values() for pair in said.candidates.items())]:
            if isinstance(words, PopularityModel) and words.demand and self.items.capacity is None:
                raise ValueError(f"candidates.{source}: `demand` needs an attribute of items that is marked `capacity`")
        for source, search in self.search.items():
            model = self.ranker if source == "ranker" else self.candidates.get(source)
            if model is None:
                raise ValueError(f"search: {source!r} is neither a source ({', '.join(self.candidates)}) nor the ranker")
            for word in search.words:
                if word not in type(model).model_fields or word == "model":
                    allowed = ", ".join(sorted(set(type(model).model_fields) - {"model"}))
                    raise ValueError(f"search.{source}: {word!r} is not a word of it; allowed are {allowed}")
        for source in self.workers:
            if source not in self.candidates or self.candidates[source].model != "sasrec":
                allowed = ", ".join(name for name, model in self.candidates.items() if model.model == "sasrec") or "none here"
                raise ValueError(f"workers: {source!r} is no source of model sasrec; allowed are {allowed}")
        parts = ("own", *self.protocols, "cold")
        for part in (*self.published, *(goal.part for goal in self.goals)):
            if part not in parts:
                raise ValueError(f"published, goals: {part!r} is no part of the benchmark; allowed are {', '.join(parts)}")
        known = {"popular", "similar", *self.candidates}
        for call in self.calls:
            if call.answers not in known:
                raise ValueError(f"calls: {call.path} answers {call.answers!r}; allowed are {', '.join(sorted(known))}")
            if (call.key is None) != (call.answers == "popular"):
                raise ValueError(f"calls: {call.path}: every answer but popular needs a key, popular has none")
        if self.experiment and abs(sum(arm.share for arm in self.experiment.values()) - 1.0) > 1e-9:
            raise ValueError("experiment: the shares of its variants must sum to 1")
        if self.source.reader == "timetable" and self.itinerary is None:
            raise ValueError("source.reader: `timetable` needs a section `itinerary`")
        for name, job in self.schedule.items():
            if job.run == "seats" and self.itinerary is None:
                raise ValueError(f"schedule.{name}: `seats` needs a section `itinerary`")
        if self.itinerary is not None and not set(self.serving.languages) <= set(self.itinerary.words):
            raise ValueError(f"itinerary.words: every language of serving.languages needs them ({', '.join(self.serving.languages)})")
        if self.serving.k > self.serving.max_k:
            raise ValueError("serving: k is above max_k")
        return self
