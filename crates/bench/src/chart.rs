//! Charts as plain SVG: lines over a common axis, one panel per unit.

use std::fmt::Write as _;

/// How the horizontal axis is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Axis {
    /// Evenly.
    Linear,
    /// Each step is a multiple.
    Logarithmic,
}

/// Lines of one unit.
#[derive(Clone, Debug)]
pub(crate) struct Panel {
    /// What is drawn, with its unit.
    pub(crate) title: &'static str,
    /// Each line's name and values, one per place on the axis; a value that is not there leaves a gap in the points.
    pub(crate) lines: Vec<(&'static str, Vec<Option<f64>>)>,
}

/// A whole chart.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    pub(crate) title: &'static str,
    /// What the axis counts.
    pub(crate) along: &'static str,
    pub(crate) axis: Axis,
    pub(crate) places: Vec<f64>,
    pub(crate) panels: Vec<Panel>,
}

const WIDTH: f64 = 720.0;
const PANEL: f64 = 220.0;
const TOP: f64 = 44.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 150.0;
/// Of a panel: above its lines, for the title, and below them, for the axis.
const ABOVE: f64 = 30.0;
const BELOW: f64 = 34.0;
/// Told apart by those who see few colours as well (Okabe and Ito).
const COLOURS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];

impl Chart {
    /// The text of an SVG file.
    pub(crate) fn svg(&self) -> String {
        let height = TOP + PANEL * small(self.panels.len()) + 24.0;
        let mut svg = format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif" font-size="12" fill="#222">
<rect width="{WIDTH}" height="{height}" fill="#fff"/>
<text x="{LEFT}" y="24" font-size="16" font-weight="600">{}</text>
"##,
            self.title
        );
        for (number, panel) in self.panels.iter().enumerate() {
            self.draw(&mut svg, panel, TOP + PANEL * small(number));
        }
        let _ = writeln!(
            svg,
            r#"<text x="{:.0}" y="{:.0}" text-anchor="middle">{}</text>"#,
            f64::midpoint(LEFT, WIDTH - RIGHT),
            height - 10.0,
            self.along
        );
        svg.push_str("</svg>\n");
        svg
    }

    fn draw(&self, svg: &mut String, panel: &Panel, top: f64) {
        let (upper, lower) = (top + ABOVE, top + PANEL - BELOW);
        let highest = panel.lines.iter().flat_map(|(_, values)| values).flatten().copied().fold(0.0, f64::max);
        let step = step(highest);
        let steps = (highest / step).ceil().max(1.0);
        let height_of = |value: f64| lower - (lower - upper) * value / (steps * step);
        let _ = writeln!(svg, r#"<text x="{LEFT}" y="{:.0}" font-weight="600">{}</text>"#, top + 16.0, panel.title);
        let mut value = 0.0;
        while value <= steps * step * 1.001 {
            let y = height_of(value);
            let _ = writeln!(svg, r##"<line x1="{LEFT}" x2="{:.0}" y1="{y:.1}" y2="{y:.1}" stroke="#ddd"/>"##, WIDTH - RIGHT);
            let _ = writeln!(svg, r#"<text x="{:.0}" y="{:.1}" text-anchor="end">{}</text>"#, LEFT - 8.0, y + 4.0, short(value));
            value += step;
        }
        for place in &self.places {
            let _ = writeln!(
                svg,
                r#"<text x="{:.1}" y="{:.0}" text-anchor="middle">{}</text>"#,
                self.across(*place),
                lower + 18.0,
                short(*place)
            );
        }
        for (number, ((name, values), colour)) in panel.lines.iter().zip(COLOURS.iter().cycle()).enumerate() {
            let points = self.places.iter().zip(values).filter_map(|(place, value)| Some((self.across(*place), height_of((*value)?))));
            let mut path = String::new();
            for (x, y) in points {
                let _ = write!(path, "{x:.1},{y:.1} ");
                let _ = writeln!(svg, r#"<circle cx="{x:.1}" cy="{y:.1}" r="3" fill="{colour}"/>"#);
            }
            let _ = writeln!(svg, r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"#, path.trim_end());
            let _ = writeln!(
                svg,
                r#"<text x="{:.0}" y="{:.0}" fill="{colour}">{name}</text>"#,
                WIDTH - RIGHT + 12.0,
                upper + 10.0 + 18.0 * small(number)
            );
        }
    }

    fn across(&self, place: f64) -> f64 {
        let along = |value: f64| if self.axis == Axis::Logarithmic { value.max(1.0).ln() } else { value };
        let least = self.places.iter().copied().map(along).fold(f64::INFINITY, f64::min);
        let most = self.places.iter().copied().map(along).fold(f64::NEG_INFINITY, f64::max);
        let share = if most > least { (along(place) - least) / (most - least) } else { 0.5 };
        LEFT + 14.0 + share * (WIDTH - RIGHT - LEFT - 28.0)
    }
}

/// The distance of two rules, such that there are three to seven: 1, 2 or 5 and some zeros.
fn step(highest: f64) -> f64 {
    let rough = (highest / 5.0).max(f64::MIN_POSITIVE);
    let power = 10_f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|digit| digit * power).find(|step| *step >= rough).unwrap_or(10.0 * power)
}

fn short(value: f64) -> String {
    let trimmed = |value: f64| format!("{value:.2}").trim_end_matches('0').trim_end_matches('.').to_owned();
    if value >= 1e6 {
        format!("{} M", trimmed(value / 1e6))
    } else if value >= 1e4 {
        format!("{} k", trimmed(value / 1e3))
    } else {
        trimmed(value)
    }
}

fn small(count: usize) -> f64 {
    u32::try_from(count).map_or(0.0, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Chart {
        let line = ("server", vec![Some(10.0), None, Some(40.0)]);
        let panel = Panel { title: "CPU, µs", lines: vec![line] };
        Chart { title: "Cost", along: "rows", axis: Axis::Linear, places: vec![0.0, 1e6, 2e6], panels: vec![panel.clone(), panel] }
    }

    #[test]
    fn a_larger_value_is_drawn_higher_and_a_missing_one_not_at_all() {
        let svg = chart().svg();
        let points = svg.lines().find_map(|line| line.strip_prefix("<polyline points=\"")).and_then(|rest| rest.split('"').next());
        let points: Vec<Vec<f64>> = points
            .expect("a line")
            .split(' ')
            .map(|point| point.split(',').map(|number| number.parse().expect("a number")).collect())
            .collect();
        assert_eq!(points.len(), 2);
        assert!(points[0][0] < points[1][0] && points[0][1] > points[1][1], "{points:?}");
        assert_eq!(svg.matches("<polyline").count(), 2, "one line in each panel");
        assert_eq!((svg.matches('<').count(), svg.matches("<svg").count()), (svg.matches('>').count(), 1));
    }

    #[test]
    fn rules_are_round_numbers() {
        for (highest, wanted) in [(93.0, 20.0), (7.0, 2.0), (0.9, 0.2), (1250.0, 500.0)] {
            assert!((step(highest) - wanted).abs() < 1e-9, "{highest}: {}", step(highest));
        }
        assert_eq!([0.0, 0.5, 250_000.0, 2e6].map(short), ["0", "0.5", "250 k", "2 M"]);
    }

    #[test]
    fn a_logarithmic_axis_gives_each_doubling_the_same_room() {
        let mut chart = chart();
        (chart.axis, chart.places) = (Axis::Logarithmic, vec![100.0, 200.0, 400.0]);
        let [one, two, four] = [100.0, 200.0, 400.0].map(|place| chart.across(place));
        assert!(((two - one) - (four - two)).abs() < 1e-6);
    }
}
