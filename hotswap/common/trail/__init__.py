"""The chain of the audit trail: its form, who extends it, and who checks it.

- `chain`: content, links and findings; pure, so that evidence is checked elsewhere.
- `anchors`: signed ends of the chain, kept outside of the database as well.
- `sealer`: adds the rows that wait to the chain.
- `verifier`: holds the table against the chain, and the chain against its anchors.
"""
