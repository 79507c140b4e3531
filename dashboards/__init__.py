"""Everything that is looked at during the shots: feed, model, views, layout, app."""

if __name__ != "ffb.dashboards":
    raise ImportError(f"import this package as 'ffb.dashboards', not {__name__!r}")
