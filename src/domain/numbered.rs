//! Several findings in one line.

use std::fmt;

/// Displays findings on one line: a single one as it is, several with their numbers.
#[derive(Debug, Clone, Copy)]
pub struct Numbered<'a, T>(pub &'a [T]);

impl<T: fmt::Display> fmt::Display for Numbered<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [single] = self.0 {
            return single.fmt(f);
        }
        write!(f, "{} findings: ", self.0.len())?;
        for (index, finding) in self.0.iter().enumerate() {
            write!(f, "{}({}) {finding}", if index == 0 { "" } else { "; " }, index + 1)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_findings_have_numbers_and_a_single_one_has_none() {
        assert_eq!(Numbered(&["a"]).to_string(), "a");
        assert_eq!(Numbered(&["a", "b"]).to_string(), "2 findings: (1) a; (2) b");
    }
}
