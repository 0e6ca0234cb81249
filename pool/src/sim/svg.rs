//! Plots as SVG, for the documentation and `hotbed pool replay`: axes, lines and a legend, nothing else.

use std::fmt::Write as _;

/// One plot.
#[derive(Debug, Clone)]
pub struct Chart {
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series>,
}

#[derive(Debug, Clone)]
pub struct Axis {
    pub label: String,
    pub from: f64,
    pub to: f64,
    /// Where the lines of the grid are, with their words.
    pub marks: Vec<(f64, String)>,
}

#[derive(Debug, Clone)]
pub struct Series {
    pub name: String,
    pub points: Vec<(f64, f64)>,
    pub look: Look,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// From point to point.
    Line,
    /// A value stays until the next point.
    Steps,
    /// Down to the lower end of the plot.
    Area,
}

impl Axis {
    /// From 0 to somewhat more than `highest`, with marks at round numbers.
    pub fn up_to(label: &str, highest: f64) -> Self {
        let rough = (highest.max(1e-9) / 5.0).log10();
        let unit = 10f64.powf(rough.floor());
        let step =
            [1.0, 2.0, 5.0, 10.0].map(|n| n * unit).into_iter().find(|s| s * 5.0 >= highest).unwrap_or(unit);
        let marks = (0..=5).map(|i| f64::from(i) * step);
        Self {
            label: label.into(),
            from: 0.0,
            to: 5.0 * step,
            marks: marks.map(|m| (m, format!("{}", (m * 1e6).round() / 1e6))).collect(),
        }
    }
}

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 58.0;
const BOTTOM: f64 = 48.0;
/// Told apart by those who see few colours, too.
const COLOURS: [&str; 6] = ["#0b63ce", "#d1690e", "#2a8f4f", "#8a4fc9", "#c2334d", "#6b7280"];
const FILL: &str = "#d9dee6";

/// Plots below each other, one document.
pub fn document(charts: &[Chart]) -> String {
    let height = HEIGHT * charts.len() as f64;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"system-ui, sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    for (i, chart) in charts.iter().enumerate() {
        let _ = writeln!(out, "<g transform=\"translate(0 {})\">", HEIGHT * i as f64);
        chart.draw(&mut out);
        out.push_str("</g>\n");
    }
    out.push_str("</svg>\n");
    out
}

impl Chart {
    fn across(&self, x: f64) -> f64 {
        LEFT + (x - self.x.from) / (self.x.to - self.x.from).max(1e-12) * (WIDTH - LEFT - RIGHT)
    }

    fn down(&self, y: f64) -> f64 {
        let bottom = HEIGHT - BOTTOM;
        bottom - (y - self.y.from) / (self.y.to - self.y.from).max(1e-12) * (bottom - TOP)
    }

    fn draw(&self, out: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let title = escape(&self.title);
        let _ =
            writeln!(out, "<text x=\"{LEFT}\" y=\"22\" font-size=\"15\" font-weight=\"600\">{title}</text>");
        for (at, words) in &self.x.marks {
            let x = self.across(*at);
            let _ = writeln!(out, "<path d=\"M{x:.1} {TOP}V{bottom}\" stroke=\"#eceff3\"/>");
            let words = escape(words);
            let _ = writeln!(
                out,
                "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{words}</text>",
                bottom + 16.0
            );
        }
        for (at, words) in &self.y.marks {
            let y = self.down(*at);
            let _ = writeln!(out, "<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#eceff3\"/>");
            let (x, words) = (LEFT - 6.0, escape(words));
            let _ = writeln!(out, "<text x=\"{x}\" y=\"{:.1}\" text-anchor=\"end\">{words}</text>", y + 4.0);
        }
        for (series, colour) in self.series.iter().zip(COLOURS.iter().cycle()) {
            self.line(out, series, colour);
        }
        self.legend(out);
        let _ = writeln!(
            out,
            "<text x=\"{right}\" y=\"{}\" text-anchor=\"end\" fill=\"#4b5563\">{}</text>\n\
             <text x=\"14\" y=\"{TOP}\" fill=\"#4b5563\" transform=\"rotate(-90 14 {TOP})\" \
             text-anchor=\"end\">{}</text>",
            bottom + 36.0,
            escape(&self.x.label),
            escape(&self.y.label)
        );
    }

    fn line(&self, out: &mut String, series: &Series, colour: &str) {
        let mut path = String::new();
        for (x, y) in &series.points {
            let (x, y) = (self.across(*x), self.down(y.clamp(self.y.from, self.y.to)));
            let _ = match (path.is_empty(), series.look) {
                (true, _) => write!(path, "M{x:.1} {y:.1}"),
                (false, Look::Line) => write!(path, "L{x:.1} {y:.1}"),
                (false, _) => write!(path, "H{x:.1}V{y:.1}"),
            };
        }
        if path.is_empty() {
            return;
        }
        if series.look == Look::Area {
            let first = self.across(series.points[0].0);
            let _ = write!(path, "V{:.1}H{first:.1}Z", self.down(self.y.from));
            let _ = writeln!(out, "<path d=\"{path}\" fill=\"{FILL}\"/>");
            return;
        }
        let _ = writeln!(out, "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\"/>");
        if series.look == Look::Line {
            for (x, y) in &series.points {
                let (x, y) = (self.across(*x), self.down(y.clamp(self.y.from, self.y.to)));
                let _ = writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.6\" fill=\"{colour}\"/>");
            }
        }
    }

    fn legend(&self, out: &mut String) {
        let mut x = LEFT;
        for (series, colour) in self.series.iter().zip(COLOURS.iter().cycle()) {
            let colour = if series.look == Look::Area { FILL } else { colour };
            let _ = writeln!(
                out,
                "<rect x=\"{x:.0}\" y=\"33\" width=\"14\" height=\"6\" fill=\"{colour}\"/><text x=\"{:.0}\" \
                 y=\"40\">{}</text>",
                x + 19.0,
                escape(&series.name)
            );
            x += 36.0 + 6.6 * series.name.chars().count() as f64;
        }
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_and_enough() {
        for highest in [0.3, 1.0, 7.0, 23.0, 99.0, 100.0, 1234.0] {
            let axis = Axis::up_to("x", highest);
            assert!(axis.to >= highest && axis.to <= highest * 2.6, "{highest} {axis:?}");
            assert_eq!(axis.marks.len(), 6);
        }
        assert_eq!(Axis::up_to("x", 23.0).marks[1], (5.0, "5".into()));
    }

    #[test]
    fn what_is_drawn_is_well_formed() {
        let series = |look| Series { name: "a < b & c".into(), points: vec![(0.0, 1.0), (2.0, 3.0)], look };
        let chart = Chart {
            title: "one".into(),
            x: Axis::up_to("hours", 2.0),
            y: Axis::up_to("members", 3.0),
            series: vec![series(Look::Line), series(Look::Steps), series(Look::Area)],
        };
        let text = document(&[chart.clone(), chart]);
        assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n"));
        assert_eq!((text.matches("<g ").count(), text.matches("</g>").count()), (2, 2));
        assert!(text.contains("a &lt; b &amp; c") && !text.contains("NaN"));
        assert_eq!(text.matches("<circle").count(), 4);
    }
}
