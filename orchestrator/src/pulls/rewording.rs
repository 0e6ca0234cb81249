//! What an open pull request says changes: somebody asks for it, or the session pushes and what is drawn from its commits is
//! another. The wish is written into the row, the forge is told with the user's token, and told again until it has answered.
//! What somebody has written at the forge meanwhile stays, unless the change was asked for.

use domain::ports::{PullRequestChange, PullRequestView, UserToken};
use domain::{
    Error, ErrorKind, How, News, PullRequestId, PullRequestRecord, PullRequestState, Result, Rewording, Words,
};
use git::PushEvent;
use store::Tx;
use tracing::warn;

use super::{FORGE_DEADLINE, Pulls, Subject};
use crate::github::people::Held;

impl Pulls {
    /// A session's branch has moved upstream: its pull request is to say what is on it now.
    pub async fn pushed(&self, push: &PushEvent) {
        for subject in self.subjects_of(&push.repo, &push.branch) {
            let done = match self.turn(&subject).await {
                Ok(_turn) => self.draw_again(&subject).await,
                Err(e) => Err(e),
            };
            if let Err(e) = done {
                warn!(session = %push.session, error = %e.chain(), "could not bring a pull request up to date");
            }
        }
    }

    async fn draw_again(&self, subject: &Subject) -> Result<()> {
        let Some(record) = self.under_way(subject).await? else { return Ok(()) };
        let session = self.store.session(record.session).await?;
        let session = session.ok_or_else(|| Error::not_found("the session of a pull request"))?;
        // Where the branch can't be looked at it says what it said: the next push draws again.
        let drawn = self.drawn(&session, &record.base, &record.asked).await?;
        let words = self.word(&session, &record.base, &record.asked, &drawn);
        self.reword(record, words, false).await.map(drop)
    }

    /// Has it say `words`; the caller holds the turn of its subject.
    pub(super) async fn reword(
        &self,
        record: PullRequestRecord,
        words: Words,
        anyway: bool,
    ) -> Result<PullRequestRecord> {
        if record.state == PullRequestState::Pending {
            let record = PullRequestRecord { title: words.title, body: words.body, ..record };
            self.store.commit(Tx::new().pull_request(&record).durable()).await?;
            self.pending.insert(record.id, record.clone());
            return Ok(record);
        }
        // Rows of older versions do not know what was said: they know what was ordered.
        let said = record.said.clone();
        let said = said.unwrap_or_else(|| Words { title: record.title.clone(), body: record.body.clone() });
        if words == said && record.rewording.is_none() {
            return Ok(record);
        }
        let wish = Rewording { words, anyway, since: self.clock.now() };
        let changed = self.amend(record.id, |r| {
            r.said.get_or_insert_with(|| said.clone());
            r.rewording = Some(wish.clone());
        });
        let record = changed.await?;
        self.rewordings.insert(record.id, wish.since);
        self.tell_forge(record).await
    }

    /// Tells the forge what is still to be told; the caller holds the turn of its subject.
    pub(super) async fn tell_forge(&self, record: PullRequestRecord) -> Result<PullRequestRecord> {
        let (Some(wish), Some(_)) = (record.rewording.clone(), record.number) else { return Ok(record) };
        let told = tokio::time::timeout(FORGE_DEADLINE, self.change_as_user(&record, &wish)).await;
        match told.unwrap_or_else(|_| Err(Error::timeout("change a pull request"))) {
            Ok(view) => {
                self.metrics.pull_request("updated");
                let done = self.amend(record.id, |r| {
                    if let Some(view) = &view {
                        r.hear(News::of(view, How::Asked));
                        r.body = view.body.clone().unwrap_or_else(|| wish.words.body.clone());
                    } else {
                        r.title = wish.words.title.clone();
                        r.body = wish.words.body.clone();
                    }
                    r.said = Some(wish.words.clone());
                    r.rewording = None;
                    r.error = None;
                });
                let record = done.await?;
                self.rewordings.remove(&record.id);
                Ok(record)
            }
            Err(e) if e.kind().is_retryable() => self.amend(record.id, |r| r.error = Some(e.chain())).await,
            Err(e) => {
                self.metrics.pull_request("update_refused");
                let refused = self.amend(record.id, |r| {
                    r.rewording = None;
                    r.error = Some(format!("it says what it said before: {}", e.chain()));
                });
                let record = refused.await?;
                self.rewordings.remove(&record.id);
                Ok(record)
            }
        }
    }

    /// `None` at a forge where the record is all there is.
    async fn change_as_user(
        &self,
        record: &PullRequestRecord,
        wish: &Rewording,
    ) -> Result<Option<PullRequestView>> {
        let (Some(people), Some(number)) = (&self.people, record.number) else { return Ok(None) };
        let Some(now) = self.forge.pull_request(&record.repo, number).await? else { return Ok(None) };
        let said = record.said.clone().unwrap_or_default();
        let change = change(&now, &said, wish);
        if change == PullRequestChange::default() || now.state != PullRequestState::Open {
            return Ok(Some(now));
        }
        let tell = async |token: &UserToken| {
            self.forge.update_pull_request(token, &record.repo, number, &change).await
        };
        let token = match people.held(record.session, &record.author).await? {
            Held::Token(token) => token,
            Held::Nothing { why } => return Err(Error::denied(why)),
        };
        let refused = match tell(&token).await {
            Err(e) if e.kind() == ErrorKind::Denied => e,
            answer => return answer.map(Some),
        };
        match people.instead(record.session, &record.author, &token).await? {
            Some(Held::Token(newer)) if newer.expose() != token.expose() => tell(&newer).await.map(Some),
            Some(Held::Nothing { why }) => Err(Error::denied(why)),
            _ => Err(refused),
        }
    }

    /// Tells again what the forge has not taken yet.
    pub(super) async fn flush_rewordings(&self) {
        let waiting: Vec<PullRequestId> = self.rewordings.iter().map(|r| *r.key()).collect();
        for id in waiting {
            if let Err(e) = self.tell_again(id).await {
                warn!(error = %e.chain(), "could not record a change of a pull request");
            }
        }
    }

    async fn tell_again(&self, id: PullRequestId) -> Result<()> {
        let Some(record) = self.store.pull_request(id).await? else { return Ok(()) };
        let _turn = self.turn(&Subject::of(&record)).await?;
        match self.store.pull_request(id).await? {
            Some(record) if record.rewording.is_some() && record.state == PullRequestState::Open => {
                self.tell_forge(record).await.map(drop)
            }
            // Merged or closed meanwhile: what it was to say is of no use any more.
            Some(_) => {
                self.amend(id, |r| r.rewording = None).await?;
                self.rewordings.remove(&id);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// What is to be changed at the forge, where it shows `now` and was told `said` before.
fn change(now: &PullRequestView, said: &Words, wish: &Rewording) -> PullRequestChange {
    // Forges store what browsers send.
    let same = |a: &str, b: &str| a.replace("\r\n", "\n").trim_end() == b.replace("\r\n", "\n").trim_end();
    let one = |shown: Option<&str>, said: &str, wanted: &str| {
        let untouched = shown.is_none_or(|shown| same(shown, said));
        let differs = shown.is_none_or(|shown| !same(shown, wanted));
        (differs && (wish.anyway || (untouched && said != wanted))).then(|| wanted.to_owned())
    };
    PullRequestChange {
        title: one(Some(&now.title), &said.title, &wish.words.title),
        // A forge shows a body of nothing as none.
        body: one(Some(now.body.as_deref().unwrap_or_default()), &said.body, &wish.words.body),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn view(title: &str, body: Option<&str>) -> PullRequestView {
        PullRequestView {
            number: 1,
            url: "https://example.com/1".into(),
            state: PullRequestState::Open,
            draft: false,
            title: title.into(),
            body: body.map(str::to_owned),
            author: "ada".into(),
            head: "x".parse().unwrap(),
            head_commit: "a".repeat(40).parse().unwrap(),
            base: "main".parse().unwrap(),
            opened_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
            merged_at: None,
        }
    }

    fn words(title: &str, body: &str) -> Words {
        Words { title: title.into(), body: body.into() }
    }

    #[test]
    fn what_somebody_wrote_at_the_forge_stays() {
        let wish = |anyway| Rewording { words: words("t2", "b2"), anyway, since: Timestamp::UNIX_EPOCH };
        let said = words("t1", "b1\n");
        let both = PullRequestChange { title: Some("t2".into()), body: Some("b2".into()) };
        assert_eq!(change(&view("t1", Some("b1\r\n")), &said, &wish(false)), both);
        let body = PullRequestChange { title: None, ..both.clone() };
        assert_eq!(change(&view("mine", Some("b1")), &said, &wish(false)), body);
        let title = PullRequestChange { body: None, ..both.clone() };
        assert_eq!(change(&view("t1", Some("mine")), &said, &wish(false)), title);
        assert_eq!(change(&view("mine", None), &said, &wish(true)), both);
        assert_eq!(change(&view("t2", Some("b2")), &said, &wish(true)), PullRequestChange::default());
        // Nothing new to say: nothing is said over what was emptied there.
        let same = Rewording { words: said.clone(), anyway: false, since: Timestamp::UNIX_EPOCH };
        assert_eq!(change(&view("t1", None), &said, &same), PullRequestChange::default());
    }
}
