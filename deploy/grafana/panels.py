"""What a dashboard is made of: a few kinds of panels, each with a description, a unit and a legend."""

from __future__ import annotations

import warnings
from enum import Enum
from itertools import count
from typing import Final, NamedTuple, TypeAlias

with warnings.catch_warnings():
    # It advises the layout of the next major version, which few installations can be given as files.
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.builders import common, prometheus, stat, statetimeline, timeseries
    from grafana_foundation_sdk.builders import dashboard as build
    from grafana_foundation_sdk.models import common as shapes
    from grafana_foundation_sdk.models import dashboard as model

_Builder: TypeAlias = timeseries.Panel | stat.Panel | statetimeline.Panel

#: A dashboard is 24 wide.
_WIDTH: Final = 24
_GRAPH_HEIGHT: Final = 8


class Unit(Enum):
    """What a panel's numbers are, in Grafana's words."""

    NUMBER = "short"
    SECONDS = "s"
    PER_SECOND = "cps"
    RECORDS_PER_SECOND = "rps"
    SHARE = "percentunit"
    BYTES = "bytes"
    CORES = "none"
    AMOUNT = "locale"


class Query(NamedTuple):
    """What is asked of Prometheus, and what each line of the answer is called (`{{label}}`)."""

    expr: str
    legend: str


class Graph(NamedTuple):
    """Lines over time; stacked if their sum means something."""

    title: str
    description: str
    unit: Unit
    queries: tuple[Query, ...]
    width: int = 8
    stacked: bool = False


class Numbers(NamedTuple):
    """What is so now, in large digits; red from `bad` on."""

    title: str
    description: str
    unit: Unit
    queries: tuple[Query, ...]
    width: int = 6
    height: int = 5
    bad: float | None = None
    #: Whether low numbers are the bad ones.
    low_is_bad: bool = False


class States(NamedTuple):
    """A bar over time that is green at 0 and red above."""

    title: str
    description: str
    unit: Unit
    queries: tuple[Query, ...]
    width: int = 12


Panel: TypeAlias = Graph | Numbers | States


class Row(NamedTuple):
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


class Dashboard(NamedTuple):
    """A page."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]

    def queries(self) -> list[tuple[Panel, Query]]:
        """All that it asks."""
        return [(panel, query) for row in self.rows for panel in row.panels for query in panel.queries]


def built(page: Dashboard) -> model.Dashboard:
    """As Grafana has it."""
    dashboard = (
        build.Dashboard(page.title)
        .uid(page.uid)
        .description(page.description)
        .tags(["arrears"])
        .readonly()
        .timezone("browser")
        .time("now-6h", "now")
        .refresh("30s")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .with_variable(build.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .link(
            build.DashboardLink("Arrears")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags(["arrears"])
            .as_dropdown(as_dropdown=False)
            .include_vars(include_vars=True)
            .keep_time(keep_time=True)
        )
        .annotation(
            build.AnnotationQuery()
            .name("Alerts")
            .datasource(_SOURCE)
            .enable(enable=True)
            .icon_color("red")
            .expr('ALERTS{alertname=~"Arrears.*",alertstate="firing"}')
        )
    )
    ids = count(1)
    for row in page.rows:
        dashboard = dashboard.with_row(build.Row(row.title).id(next(ids)))
        for panel in row.panels:
            dashboard = dashboard.with_panel(_panel(panel).id(next(ids)))
    return dashboard.build()


_SOURCE: Final = shapes.DataSourceRef(type_val="prometheus", uid="${datasource}")


def _panel(panel: Panel) -> _Builder:
    match panel:
        case Graph():
            return _with_queries(_graph(panel), panel)
        case Numbers():
            return _with_queries(_numbers(panel), panel)
        case States():
            return _with_queries(_states(panel), panel)


def _with_queries(builder: _Builder, panel: Panel) -> _Builder:
    assert panel.width <= _WIDTH
    builder = (
        builder.title(panel.title)
        .description(panel.description)
        .unit(panel.unit.value)
        .datasource(_SOURCE)
        .span(panel.width)
    )
    for number, query in enumerate(panel.queries):
        asked = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(chr(ord("A") + number))
        builder = builder.with_target(asked.instant() if isinstance(panel, Numbers) else asked.range())
    return builder


def _graph(panel: Graph) -> timeseries.Panel:
    graph = (
        timeseries.Panel()
        .height(_GRAPH_HEIGHT)
        .min(0)
        .line_width(1)
        .fill_opacity(10)
        .show_points(shapes.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(shapes.LegendDisplayMode.LIST)
            .placement(shapes.LegendPlacement.BOTTOM)
            .show_legend(show_legend=True)
        )
        .tooltip(common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI).sort(shapes.SortOrder.DESCENDING))
    )
    if panel.stacked:
        graph = graph.fill_opacity(30).stacking(common.StackingConfig().mode(shapes.StackingMode.NORMAL))
    return graph


def _numbers(panel: Numbers) -> stat.Panel:
    good, bad = "green", "red"
    steps = [model.Threshold(value=None, color="text" if panel.bad is None else bad if panel.low_is_bad else good)]
    if panel.bad is not None:
        steps.append(model.Threshold(value=panel.bad, color=good if panel.low_is_bad else bad))
    return (
        stat.Panel()
        .height(panel.height)
        .thresholds(build.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps))
        .text_mode(shapes.BigValueTextMode.VALUE_AND_NAME)
        .graph_mode(shapes.BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(values=False))
    )


def _states(_: States) -> statetimeline.Panel:
    steps = [model.Threshold(value=None, color="green"), model.Threshold(value=1, color="red")]
    return (
        statetimeline.Panel()
        .height(_GRAPH_HEIGHT)
        .thresholds(build.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps))
        .color_scheme(build.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .show_value(shapes.VisibilityMode.AUTO)
        .legend(
            common.VizLegendOptions()
            .display_mode(shapes.LegendDisplayMode.LIST)
            .placement(shapes.LegendPlacement.BOTTOM)
            .show_legend(show_legend=True)
        )
    )
