//! What the classic builder says of the images that it makes on its way. It keeps each as its cache, without a name or
//! a label, so that nobody would ever remove them.

/// The images that one build has made, in their order.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    made: Vec<String>,
    /// The step at hand names an image that it has not made: where a stage begins, or one of the cache.
    found: bool,
}

impl Steps {
    /// Hears some of the builder's output, whole lines of it.
    pub(crate) fn hear(&mut self, text: &str) {
        for line in text.lines() {
            if let Some((_, step)) = line.strip_prefix("Step ").and_then(|rest| rest.split_once(" : ")) {
                self.found =
                    step.trim_start().get(..5).is_some_and(|word| word.eq_ignore_ascii_case("from "));
            } else if let Some(said) = line.strip_prefix(" ---> ") {
                let is_id = said.len() >= 12 && said.bytes().all(|b| b.is_ascii_hexdigit());
                if said == "Using cache" {
                    self.found = true;
                } else if is_id && !self.found {
                    self.made.push(said.to_owned());
                }
            }
        }
    }

    /// The images that this build has made itself, the last first.
    pub(crate) fn made(&self) -> impl Iterator<Item = &str> {
        self.made.iter().rev().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_build_has_made_is_told() {
        let mut steps = Steps::default();
        for text in [
            "Step 1/5 : FROM debian AS first\n",
            " ---> 0123456789ab\n",
            "Step 2/5 : COPY a /a\n",
            " ---> Using cache\n",
            " ---> 1123456789ab\n",
            "Step 3/5 : RUN make\n ---> Running in 2223456789ab\n",
            " ---> not-an-id\n",
            "Removing intermediate container 2223456789ab\n ---> 3323456789ab\n",
            "Step 4/5 : from first\n ---> 3323456789ab\n",
            "Step 5/5 : ENV A=B\n",
            " ---> 4423456789ab\nSuccessfully built 4423456789ab\n",
        ] {
            steps.hear(text);
        }
        assert_eq!(steps.made().collect::<Vec<_>>(), ["4423456789ab", "3323456789ab"]);
    }
}
