//! What `/metrics` says, as far as it is drawn: series by name, with their labels as they are written.

use std::collections::HashMap;

/// The last value of each series.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Numbers(HashMap<String, Vec<(String, f64)>>);

impl Numbers {
    pub fn parse(text: &str) -> Self {
        let mut all: HashMap<String, Vec<(String, f64)>> = HashMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            // What follows the value is an exemplar.
            let line = line.split(" # ").next().unwrap_or(line);
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            if let Ok(value) = value.parse() {
                let labels = labels.trim_end_matches('}').to_owned();
                all.entry(name.to_owned()).or_default().push((labels, value));
            }
        }
        Self(all)
    }

    /// The series of this name whose labels hold all of these, added up; nothing where there is none.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted: Vec<_> = labels.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
        let found =
            self.0.get(name)?.iter().filter(|(has, _)| wanted.iter().all(|w| has.contains(w.as_str())));
        found.map(|(_, value)| *value).reduce(|a, b| a + b)
    }

    /// Each value of one label, with what is counted under it.
    pub fn by(&self, name: &str, label: &str) -> Vec<(String, f64)> {
        let mark = format!("{label}=\"");
        let value = |labels: &str| Some(labels.split_once(&mark)?.1.split('"').next()?.to_owned());
        let series = self.0.get(name).into_iter().flatten();
        series.filter_map(|(labels, n)| Some((value(labels)?, *n))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_found_and_added_up() {
        let numbers = Numbers::parse(
            "# TYPE hotbed_pool_hits counter\nhotbed_pool_hits_total{repo=\"acme/api\"} 3\n\
             hotbed_pool_hits_total{repo=\"acme/web\"} 4 # {trace_id=\"1\"} 1\nhotbed_budget_cpus 24.5\nnonsense\n# EOF\n",
        );
        assert_eq!(numbers.get("hotbed_pool_hits_total", &[]), Some(7.0));
        assert_eq!(numbers.get("hotbed_pool_hits_total", &[("repo", "acme/web")]), Some(4.0));
        assert_eq!(numbers.get("hotbed_pool_hits_total", &[("repo", "acme/none")]), None);
        assert_eq!(numbers.get("hotbed_budget_cpus", &[]), Some(24.5));
        assert_eq!(numbers.by("hotbed_pool_hits_total", "repo")[0], ("acme/api".to_owned(), 3.0));
    }
}
