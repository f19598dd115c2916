"""Figure factories: Arrow tables in, `plotly.graph_objects.Figure` out. The notebooks use them unchanged."""
