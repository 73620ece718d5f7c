"""Run records -> tables, curves and one page that opens offline: `render.render` writes all of them."""
